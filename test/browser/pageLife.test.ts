import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { tiny } from "../../guests/catalog.ts";
import { requireGuests } from "../support/guests.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { BOOT, expectNoOverflow, startUser, typeKeys, type User } from "./pageHarness.ts";
import { type PageServer, staticPage } from "./pageServer.ts";

const able = requireTool("chromium") && requireGuests(tiny);

describe.skipIf(!able)("a machine's life in the page", { timeout: 3 * BOOT }, () => {
  const folder = tempFolder();
  let server: PageServer, user: User;

  beforeAll(async () => { server = await staticPage(folder); });
  afterAll(async () => { await server.stop(); });

  afterEach(async () => {
    const { errors } = user;
    await user.leave();
    expect(errors).toEqual([]);
  });

  test("a second tab is told, sees no blank disk, and may boot a temporary machine", async () => {
    user = await startUser();
    const first = await user.tab(server.url);
    await first.boot(tiny.title);
    await first.run("echo one > /root/f; sync");

    const second = await user.tab(server.url);
    const card = second.page.locator(".card.kept");
    expect(await card.innerText()).toContain("Read-only (open elsewhere)");
    expect(await card.innerText()).toContain("Another tab or window runs this machine");
    await second.button("Continue here").click();
    const error = second.page.locator(".card.error");
    await error.waitFor();
    expect(await error.innerText()).toContain("Open in another tab");
    await second.screenshot("second-tab");
    await second.button("Boot a temporary machine").click();
    await second.ready();
    expect(await second.page.locator(".chip").innerText()).toBe("Temporary");
    expect(await second.run("cat /root/f")).not.toContain("one");
    await second.page.close();

    // The first tab never noticed; once it is off, another may go on.
    expect(await first.run("cat /root/f")).toContain("one");
    await first.powerOff();
    const third = await user.tab(server.url);
    await third.button("Continue").first().click();
    await third.ready();
    expect(await third.run("cat /root/f")).toContain("one");
  });

  test("reset reboots with the changes, start fresh asks twice and deletes them", async () => {
    user = await startUser();
    const page = await user.tab(server.url);
    await page.boot(tiny.title);
    await page.run("echo kept > /root/f; sync");
    await page.run("clear");
    await page.button("Reset").click();
    await expect.poll(() => page.terminal(), { timeout: BOOT }).toContain("GUEST-READY");
    expect(await page.ready()).toBeGreaterThan(1);
    expect(await page.run("cat /root/f")).toContain("kept");

    await page.button("Start fresh…").click();
    await page.button("Keep").click();
    expect(await page.run("cat /root/f")).toContain("kept");
    await page.button("Start fresh…").click();
    await page.screenshot("start-fresh");
    await page.button("Delete").click();
    await expect.poll(() => page.page.locator(".doing[data-ready=true]").count()).toBe(0);
    await page.ready();
    expect(await page.run("cat /root/f")).toContain("No such file");

    await page.powerOff();
    await page.page.locator(".card.kept").waitFor();
    await page.button("Start fresh…").click();
    await page.button("Delete").click();
    await page.page.locator(".card.kept").waitFor({ state: "detached" });
  });

  test("keys reach the screen's console while it has the focus, and a chord leaves it", async () => {
    user = await startUser();
    const page = await user.tab(server.url);
    await page.boot(tiny.title);
    const screen = page.page.locator(".screen");
    await screen.click();
    expect(await page.page.locator("#screen-hint").innerText()).toContain("leaves");
    await typeKeys(page, "echo \"VGA|Keys\" $((6*7)) > /dev/ttyS0\n");
    await expect.poll(() => page.terminal(), { timeout: 20_000 }).toContain("VGA|Keys 42");
    await page.screenshot("keyboard");
    await page.page.keyboard.press("Tab");
    expect(await screen.evaluate((one) => one === document.activeElement)).toBe(true);
    await page.page.keyboard.press("Control+Alt+g");
    expect(await page.page.evaluate(() => document.activeElement?.textContent)).toBe("Ctrl-Alt-Del");
    await page.page.keyboard.press("Enter");
    await expect.poll(async () => (await page.terminal()).split("GUEST-READY").length - 1, { timeout: BOOT }).toBe(2);
  });

  test("a full disk is an I/O error in the guest and a banner on the page", async () => {
    user = await startUser();
    const page = await user.tab(server.url);
    await page.boot(tiny.title);
    await page.saved();
    const cdp = await user.context.newCDPSession(page.page);
    await cdp.send("Storage.overrideQuotaForOrigin", { origin: new URL(server.url).origin, quotaSize: 8 << 20 });
    await page.run("dd if=/dev/urandom of=/root/big bs=1M count=24; sync", 90_000);
    const banner = page.page.locator(".banner.bad");
    await banner.waitFor();
    expect(await banner.innerText()).toContain("The browser's storage is full");
    expect(await page.run("dmesg | grep -c 'I/O error'")).not.toMatch(/^0$/m);
    await page.screenshot("full");
  });

  for (const [dark, width] of [[false, 1280], [true, 1280], [false, 360], [true, 360]] as const) {
    test(`fits at ${width} px in ${dark ? "dark" : "light"}`, async () => {
      user = await startUser({ width, height: width === 360 ? 740 : 860, dark });
      const page = await user.tab(server.url), name = `${width}-${dark ? "dark" : "light"}`;
      await expectNoOverflow(page);
      await page.screenshot(`home-${name}`);
      await page.boot(tiny.title);
      await page.run("uname -a; df -h /; ls /");
      await expectNoOverflow(page);
      await page.screenshot(`machine-${name}`);
      await page.powerOff();
      await page.page.getByRole("textbox").fill(`${server.url}missing.qcow2`);
      await page.page.locator("form.url button").click();
      await page.page.locator(".card.error").waitFor();
      await expectNoOverflow(page);
      await page.screenshot(`error-${name}`);
    });
  }
});
