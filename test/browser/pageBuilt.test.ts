import { statSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { tiny } from "../../guests/catalog.ts";
import { guestFile, requireGuests } from "../support/guests.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { BOOT, startUser, type User } from "./pageHarness.ts";
import { type PageServer, staticPage } from "./pageServer.ts";

const able = requireTool("chromium") && requireGuests(tiny);

describe.skipIf(!able)("the built page as static files under a path", { timeout: 2 * BOOT }, () => {
  const folder = tempFolder();
  let server: PageServer, user: User, withGuests = true;

  beforeAll(async () => { server = await staticPage(join(folder, "page"), "/some/where/", () => withGuests); });
  afterAll(async () => { await server.stop(); });

  afterEach(async () => {
    const { errors } = user;
    await user.leave();
    expect(errors).toEqual([]);
  });

  test("boots, and keeps changes over a reload", async () => {
    withGuests = true;
    user = await startUser();
    const page = await user.tab(server.url), seconds = await page.boot(tiny.title);
    console.log(`tiny over virtio from the built page in Chromium: ${seconds} s to the prompt`);
    await page.run("echo built > /root/f; sync");
    await page.page.reload();
    await page.button("Continue").first().click();
    await page.ready();
    expect(await page.run("cat /root/f")).toContain("built");
  });

  test("without https nothing can be kept: it boots all the same, and says Temporary", async () => {
    withGuests = true;
    user = await startUser({ flags: ["--host-resolver-rules=MAP plain.test 127.0.0.1"] });
    const page = await user.tab(server.url.replace("localhost", "plain.test"));
    expect(await page.page.locator(".banner").innerText()).toContain("keeps nothing");
    await page.boot(tiny.title);
    expect(await page.page.locator(".chip").innerText()).toBe("Temporary");
    await page.run("echo gone > /root/f; sync");
    await page.screenshot("temporary");
    const overlay = join(folder, "temporary.qcow2");
    expect(await page.download("Download changes", overlay)).toBe("tiny-changes.qcow2");
    expect(statSync(overlay).size).toBeGreaterThan(200_000);
  });

  test("without any guest built it says how to get one, and why an own image does not boot", async () => {
    withGuests = false;
    user = await startUser();
    const page = await user.tab(server.url);
    expect(await page.page.locator(".banner").innerText()).toContain("bash guests/build.sh");
    await page.page.locator("#pick").setInputFiles(guestFile(tiny.image));
    const card = page.page.locator(".card.error");
    await card.waitFor();
    expect(await card.innerText()).toContain("bash guests/build.sh bios");
    await page.screenshot("no-guests");
  });
});
