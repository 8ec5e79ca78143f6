import { mkdirSync, readFileSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { tiny } from "../../guests/catalog.ts";
import { makeDmg } from "../support/dmg.ts";
import { guestFile, requireGuests } from "../support/guests.ts";
import { startPageServer } from "../support/pageServer.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";
import { BOOT, type PageUser, startUser, type User } from "./pageHarness.ts";
import { type PageServer, staticPage } from "./pageServer.ts";

const able = requireTool("chromium", "qemu-img") && requireGuests(tiny);

describe.skipIf(!able)("images of one's own", { timeout: 3 * BOOT }, () => {
  const folder = tempFolder(), image = guestFile(tiny.image);
  let server: PageServer, user: User, page: PageUser;

  beforeAll(async () => { server = await staticPage(join(folder, "page")); });
  afterAll(async () => { await server.stop(); });

  afterEach(async () => {
    const { errors } = user;
    await user.leave();
    expect(errors).toEqual([]);
  });

  /** As the page tells that the shell is there: nobody knows the prompt of an unknown image. */
  async function shell(): Promise<void> {
    await expect.poll(async () => (await page.page.locator(".card.error").count() > 0 ? "error" : await page.terminal()), { timeout: BOOT, interval: 300 }).toMatch(/tiny# $|tiny#$|error/m);
    expect(await page.page.locator(".card.error").allInnerTexts()).toEqual([]);
  }

  async function pick(selector: string, ...files: string[]): Promise<void> {
    await page.page.locator(selector).setInputFiles(files);
  }

  async function refusal(): Promise<string> {
    const card = page.page.locator(".card.error");
    await card.waitFor({ timeout: 20_000 });
    const text = await card.innerText();
    await page.button("Dismiss").click();
    return text;
  }

  test("a dropped file boots; after a reload it must be picked again, and only the same one will do", async () => {
    user = await startUser();
    page = await user.tab(server.url);
    await drop(page, image, "dropped.qcow2");
    await shell();
    await page.run("echo mine > /root/f; sync");
    await page.saved();
    await page.page.reload();
    const kept = page.page.locator(".card.kept");
    await kept.waitFor();
    expect(await kept.innerText()).toContain("Continue: pick dropped.qcow2 (11.");
    await page.screenshot("dropped-kept");

    const same = join(folder, "dropped.qcow2"), another = join(folder, "other.qcow2"), changed = join(folder, "changed", "dropped.qcow2");
    for (const copy of [same, another]) writeFileSync(copy, readFileSync(image));
    mkdirSync(join(folder, "changed"));
    const bytes = readFileSync(image);
    bytes[bytes.length - 1] = (bytes.at(-1) ?? 0) ^ 1;
    writeFileSync(changed, bytes);
    await pick(".kept input", another);
    expect(await refusal()).toContain("belong to 'dropped.qcow2'");
    await pick(".kept input", changed);
    expect(await refusal()).toContain("not the one that the kept changes were made over");
    await pick(".kept input", same);
    await shell();
    expect(await page.run("cat /root/f")).toContain("mine");
  });

  test("an overlay boots with its backing file picked along, and names it when alone", async () => {
    const overlay = join(folder, "overlay.qcow2"), base = join(folder, "base.qcow2");
    writeFileSync(base, readFileSync(image));
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", overlay]);
    user = await startUser();
    page = await user.tab(server.url);
    await pick("#pick", overlay);
    expect(await refusal()).toContain("rests on the file 'base.qcow2': pick or drop both files together");
    await pick("#pick", base, overlay);
    await shell();
    const changes = join(folder, "overlay-changes.qcow2");
    await page.run("echo deep > /root/f; sync");
    expect(await page.download("Download changes", changes)).toBe("overlay-changes.qcow2");
    expect(runTool("qemu-img", ["info", "--backing-chain", changes])).toContain("base.qcow2");
    expect(runTool("qemu-img", ["check", changes])).toContain("No errors");
  });

  test("what cannot be booted is refused by name, with what to do", async () => {
    const make = (name: string, ...options: string[]): string => {
      runTool("qemu-img", ["create", "-q", ...options, join(folder, name), "64M"]);
      return join(folder, name);
    };
    const raw = join(folder, "text.img"), empty = join(folder, "empty.img"), locked = join(folder, "locked.img"), dmg = join(folder, "disk.dmg");
    writeFileSync(locked, Buffer.concat([Buffer.from("LUKS\xba\xbe", "latin1"), Buffer.alloc(4090)]));
    writeFileSync(dmg, makeDmg({ partitions: [[{ type: "lzfse", sectors: 8, data: Buffer.alloc(100) }]] }));
    writeFileSync(raw, "no disk at all\n".repeat(100));
    writeFileSync(empty, "");
    const broken = make("broken.qcow2", "-f", "qcow2");
    truncateSync(broken, 100);
    user = await startUser();
    page = await user.tab(server.url);
    const cases: [file: string, says: string][] = [
      [make("disk.vmdk", "-f", "vmdk"), "not bootable"], [make("flat.vmdk", "-f", "vmdk", "-o", "subformat=monolithicFlat"), "rests on the file 'flat-flat.vmdk'"], [make("disk.vdi", "-f", "vdi"), "not bootable"],
      [make("disk.vhdx", "-f", "vhdx"), "not bootable"], [make("disk.vhd", "-f", "vpc"), "not bootable"], [make("disk.qcow", "-f", "qcow"), "not bootable"], [dmg, "compressed with LZFSE"], [locked, "an encrypted disk (LUKS)"],
      [make("blank.qcow2", "-f", "qcow2"), "not bootable"], [raw, "not bootable"], [empty, "empty"], [broken, "broken.qcow2"],
    ];
    for (const [file, says] of cases) {
      await pick("#pick", file);
      expect(await refusal()).toContain(says);
    }
    await pick("#pick", join(folder, "flat-flat.vmdk"), join(folder, "flat.vmdk"));
    expect(await refusal()).toContain("not bootable");
    await pick("#pick", locked);
    expect(await page.page.locator(".card.error").innerText()).toContain("qemu-img convert -O qcow2 locked.img locked.qcow2");
    await page.screenshot("refused");
    expect(await page.page.locator(".card.kept").count()).toBe(0);
  });

  test("an image on another site boots lazily; while its server fails the guest is held, and goes on after Try again", async () => {
    let failing = false, open = true;
    const bytes = readFileSync(image);
    const site = await startPageServer(new Map(), (request, response) => {
      const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
      if (failing) {
        response.writeHead(503).end();
        return true;
      }
      const begin = Number(first), end = Math.min(Number(last), bytes.length - 1);
      const cors = open ? { "Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Content-Range, ETag" } : {};
      response.writeHead(206, { ...cors, "Content-Range": `bytes ${begin}-${end}/${bytes.length}`, "Content-Length": end - begin + 1, "ETag": '"1"' }).end(bytes.subarray(begin, end + 1));
      return true;
    });
    try {
      user = await startUser();
      page = await user.tab(server.url);
      const boot = async (): Promise<void> => {
        await page.page.getByRole("textbox").fill(`${site.url}/images/tiny.qcow2`);
        await page.page.locator("form.url button").click();
      };
      open = false;
      await boot();
      expect(await refusal()).toContain("Access-Control-Allow-Origin");
      open = true;
      await boot();
      await page.page.locator(".machine[data-stage=on]").waitFor();
      expect(await page.page.locator(".facts").innerText()).toMatch(/tiny.qcow2: [\d.]+ [KM]B of 11.. MB fetched/);
      failing = true;
      const card = page.page.locator(".card.error");
      await card.waitFor({ timeout: 60_000 });
      expect(await card.innerText()).toContain("the guest is paused");
      await page.screenshot("outage");
      failing = false;
      await page.button("Try again").click();
      expect(await page.page.locator(".chip").innerText()).not.toBe("Temporary");
      await shell();
      expect(await page.run("echo lazily")).toContain("lazily");
    } finally {
      await site.stop();
    }
  });
});

/** Drops a file onto the page as a user does. */
async function drop({ page }: PageUser, path: string, name: string): Promise<void> {
  const base64 = readFileSync(path).toString("base64");
  const transfer = await page.evaluateHandle(async ([base64, name]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([await (await fetch(`data:application/octet-stream;base64,${base64}`)).arrayBuffer()], name ?? ""));
    return transfer;
  }, [base64, name]);
  await page.dispatchEvent(".drop", "dragover", { dataTransfer: transfer });
  await page.dispatchEvent(".drop", "drop", { dataTransfer: transfer });
}
