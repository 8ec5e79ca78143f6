import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { launchChromium } from "../support/chromium.ts";
import { biosImages, requireGuests } from "../support/guests.ts";
import { bundle, type PageServer, startPageServer } from "../support/pageServer.ts";
import { echoDisk, mode13Disk, VGA_COLOURS, vesaDisk } from "../support/sectors.ts";
import { requireTool } from "../support/tools.ts";
import type { MachinePage } from "./machine.page.ts";

const HERE = import.meta.dirname;
const HTML = `<!doctype html><title>machine</title><link rel=icon href="data:,"><body><script type=module src="/page.js"></script>`;
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64");

declare global { var machinePage: MachinePage }

describe.skipIf(!requireTool("chromium") || !requireGuests())("a machine in a worker of Chromium", () => {
  let server: PageServer;
  let browser: Awaited<ReturnType<typeof launchChromium>>;
  let page: Page;

  beforeAll(async () => {
    const files = new Map([...await bundle("page", join(HERE, "machine.page.ts")), ...await bundle("worker", join(HERE, "machine.worker.ts"))]);
    const wasm = readFileSync(join(dirname(createRequire(import.meta.url).resolve("v86")), "v86.wasm"));
    server = await startPageServer(files.set("/", HTML).set("/v86.wasm", wasm));
    browser = await launchChromium();
    page = await browser.context.newPage();
    page.on("console", (message) => console.log(`[chromium] ${message.text()}`));
    page.on("pageerror", (error) => console.log(`[chromium] ${error.message}`));
    await page.goto(server.url);
    await page.waitForFunction(() => "machinePage" in globalThis);
  });
  afterAll(async () => {
    await browser.context.close();
    await browser.stop();
    await server.stop();
  });

  function images(disk: Uint8Array): { bios: string; vgaBios: string; disk: string } {
    const { bios, vgaBios } = biosImages();
    return { bios: base64(bios), vgaBios: base64(vgaBios), disk: base64(disk) };
  }

  async function boot(disk: Uint8Array, bus: "ide" | "virtio"): Promise<void> {
    await page.evaluate((config) => machinePage.create(config), { ...images(disk), bus });
    await page.evaluate(() => machinePage.start());
    await page.evaluate(() => machinePage.waitForSerial("R"));
  }

  const destroy = (): Promise<void> => page.evaluate(() => machinePage.destroy());

  test("text shows on the canvas; serial echo; nothing asynchronous with a disk in memory", async () => {
    await boot(echoDisk(), "virtio");
    await page.evaluate(() => machinePage.sendSerial("héllo"));
    expect(await page.evaluate(() => machinePage.waitForSerial("llo"))).toBe("héllo");
    expect((await page.evaluate(() => machinePage.screenText())).join("\n")).toContain("Booting from Hard Disk");
    expect(await page.evaluate(() => machinePage.canvas())).toMatchObject({ width: 720, height: 400 });
    expect(JSON.parse(await page.evaluate(() => machinePage.statistics()))).toMatchObject({ virtio0: { asynchronous: 0 } });
    const folder = process.env["SCREENSHOTS"];
    if (folder) await page.screenshot({ path: join(folder, "text.png") });
    await destroy();
  });

  test.each([["mode 13h", mode13Disk, 320, 200], ["VESA 101h", vesaDisk, 640, 480]] as const)("%s shows on the canvas", async (name, disk, width, height) => {
    await boot(disk(), "ide");
    await expect.poll(() => page.evaluate(() => machinePage.canvas())).toEqual({ width, height, colours: VGA_COLOURS });
    expect(await page.evaluate(() => machinePage.events)).toContain(`screen ${width}x${height}`);
    const folder = process.env["SCREENSHOTS"];
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`) });
    await destroy();
  });

  test("a failed read pauses the machine until the page decides", async () => {
    await page.evaluate((config) => machinePage.create(config), { ...images(echoDisk()), bad: 0 });
    await page.evaluate(() => machinePage.start());
    await expect.poll(() => page.evaluate(() => machinePage.failures.length), { timeout: 20_000 }).toBe(1);
    const [failure] = await page.evaluate(() => machinePage.failures);
    expect(failure).toMatchObject({ drive: "virtio0", operation: "read", offset: 0, kind: "io", message: "test: this part is bad (at offset 0x0)" });
    await expect.poll(() => page.evaluate(() => machinePage.events.at(-1))).toBe("stopped");
    await page.evaluate(() => machinePage.heal());
    await page.evaluate((id) => machinePage.decide(id), failure?.id ?? 0);
    expect(await page.evaluate(() => machinePage.waitForSerial("R"))).toContain("R");
    await destroy();
  });

  test("a saved state goes on in a new worker", async () => {
    await boot(echoDisk(), "virtio");
    expect(await page.evaluate(() => machinePage.save())).toBeGreaterThan(100_000);
    await destroy();
    await page.evaluate((config) => machinePage.create(config), images(echoDisk()));
    await page.evaluate(() => machinePage.restore());
    await page.evaluate(() => machinePage.start());
    await page.evaluate(() => machinePage.sendSerial("again"));
    expect(await page.evaluate(() => machinePage.waitForSerial("again"))).toBe("again");
    await destroy();
  });

  test("a disk that cannot be opened is a DiskError in the page", async () => {
    const creation = page.evaluate((config) => machinePage.create(config), { ...images(echoDisk()), missing: true });
    await expect(creation).rejects.toThrow("DiskError not-found: gone.qcow2: no such disk");
  });
});
