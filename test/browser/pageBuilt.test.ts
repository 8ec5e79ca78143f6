import { createReadStream, existsSync, statSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { build } from "vite";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { tiny } from "../../guests/catalog.ts";
import { guestFile, requireGuests } from "../support/guests.ts";
import { startPageServer } from "../support/pageServer.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { BOOT, startUser, type User } from "./pageHarness.ts";

const able = requireTool("chromium") && requireGuests(tiny);
const UNDER = "/some/where/";
const TYPES: Readonly<Record<string, string>> = { html: "text/html", js: "text/javascript", css: "text/css", wasm: "application/wasm", json: "application/json" };

describe.skipIf(!able)("the built page as static files under a path", { timeout: 2 * BOOT }, () => {
  const folder = tempFolder();
  let server: Awaited<ReturnType<typeof startPageServer>>, user: User, withGuests = true;

  beforeAll(async () => {
    const root = join(import.meta.dirname, "../..");
    await build({ configFile: join(root, "vite.config.ts"), root: join(root, "web"), logLevel: "warn", build: { outDir: folder, emptyOutDir: true } });
    server = await startPageServer(new Map(), serve);
  });
  afterAll(async () => { await server.stop(); });

  afterEach(async () => {
    const { errors } = user;
    await user.leave();
    expect(errors).toEqual([]);
  });

  /** Any static host, with guests/out beside the page. */
  function serve(request: IncomingMessage, response: ServerResponse): boolean {
    const { pathname } = new URL(request.url ?? "/", "http://x");
    if (!pathname.startsWith(UNDER)) return false;
    const name = pathname.slice(UNDER.length) || "index.html", guest = /^guests\/(.*)/.exec(name)?.[1];
    if (guest === "catalog.json" && withGuests) {
      response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify({ guests: [{ name: tiny.name }] }));
      return true;
    }
    const file = guest === undefined ? join(folder, name) : guestFile(guest);
    if (!existsSync(file) || (guest !== undefined && !withGuests)) return false;
    const { size } = statSync(file), [, first = "0", last = String(size - 1)] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const start = Number(first), end = Math.min(Number(last), size - 1), range = request.headers.range === undefined ? {} : { "Content-Range": `bytes ${start}-${end}/${size}` };
    response.writeHead(request.headers.range === undefined ? 200 : 206, { ...range, "Content-Type": TYPES[file.replace(/.*\./, "")] ?? "application/octet-stream", "Content-Length": end - start + 1 });
    createReadStream(file, { start, end }).pipe(response);
    return true;
  }

  test("boots, and keeps changes over a reload", async () => {
    withGuests = true;
    user = await startUser();
    const page = await user.tab(server.url + UNDER), seconds = await page.boot(tiny.title);
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
    const page = await user.tab(server.url.replace("localhost", "plain.test") + UNDER);
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
    const page = await user.tab(server.url + UNDER);
    expect(await page.page.locator(".banner").innerText()).toContain("bash guests/build.sh");
    await page.page.locator("#pick").setInputFiles(guestFile(tiny.image));
    const card = page.page.locator(".card.error");
    await card.waitFor();
    expect(await card.innerText()).toContain("bash guests/build.sh bios");
    await page.screenshot("no-guests");
  });
});
