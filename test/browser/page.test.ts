import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { debian, tiny } from "../../guests/catalog.ts";
import { guestFile, requireGuests } from "../support/guests.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";
import { npmStart, type PageServer } from "./pageServer.ts";
import { BOOT, sha256, startUser, type User } from "./pageHarness.ts";

const able = requireTool("chromium", "qemu-img", "debugfs", "e2fsck") && requireGuests(tiny, debian);

describe.skipIf(!able)("the page", { timeout: 3 * BOOT }, () => {
  const folder = tempFolder();
  let server: PageServer, user: User;

  beforeAll(async () => { server = await npmStart(); });
  afterAll(async () => { await server.stop(); });

  afterEach(async () => {
    const { errors } = user;
    await user.leave();
    expect(errors).toEqual([]);
  });

  for (const bus of ["virtio", "ide"] as const) {
    test(`Debian over ${bus}: a file survives a reload, and the changes download as a qcow2 that QEMU's tools accept`, async () => {
      const base = join(folder, debian.image), before = sha256(guestFile(debian.image));
      copyFileSync(guestFile(debian.image), base);
      user = await startUser();
      let page = await user.tab(server.url);
      const cold = await page.boot(debian.title, bus);
      await page.run("echo hello > /root/f; sync");
      await page.saved();
      await page.screenshot(`debian-${bus}`);

      await page.page.reload();
      await page.page.locator(".card.kept").waitFor();
      expect(await page.page.locator(".card.kept").innerText()).toContain("Only in this browser");
      await page.screenshot(`kept-${bus}`);
      await page.button("Continue").first().click();
      const warm = await page.ready();
      console.log(`debian over ${bus} in Chromium: ${cold} s to the prompt, ${warm} s with its changes`);
      expect(await page.run("cat /root/f; ls -d /sys/block/[sv]da")).toContain("hello");
      expect(await page.terminal()).toContain(bus === "ide" ? "/sys/block/sda" : "/sys/block/vda");
      await page.run("echo more > /root/g; sync");

      const overlay = join(folder, `${bus}.qcow2`);
      expect(await page.download("Download changes", overlay)).toBe("debian-changes.qcow2");
      await page.screenshot(`downloaded-${bus}`);
      expectConsistent(overlay, folder);
      expect(fileInside(overlay, "/root/f")).toBe("hello\n");
      expect(fileInside(overlay, "/root/g")).toBe("more\n");

      // The same once more from the machine that is off, and as the browser itself holds it.
      await page.powerOff();
      const off = join(folder, `${bus}-off.qcow2`), held = join(folder, `${bus}-held.qcow2`);
      await page.download("Download", off);
      await page.readKept(`guest-${debian.name}`, held);
      expect(sha256(held)).toBe(sha256(off));
      expectConsistent(off, folder);
      expect(runTool("qemu-img", ["compare", off, held])).toContain("identical");
      expect(sha256(guestFile(debian.image))).toBe(before);
      expect(sha256(base)).toBe(before);
    });
  }

  /** As it stands beside its base: nothing to repair, and the guest's file system is whole. */
  function expectConsistent(overlay: string, besideBase: string): void {
    expect(runTool("qemu-img", ["check", overlay])).toContain("No errors were found");
    const info = JSON.parse(runTool("qemu-img", ["info", "--output=json", overlay])) as Record<string, unknown>;
    expect(info).toMatchObject({ "format": "qcow2", "backing-filename": debian.image, "backing-filename-format": "qcow2", "full-backing-filename": join(besideBase, debian.image) });
    const raw = flat(overlay);
    // -n opens read-only and does not replay the journal of a file system that is mounted: what is there must be in order.
    const { status, stdout } = tryTool("e2fsck", ["-fn", raw]);
    expect({ status, stdout }).toMatchObject({ status: 0 });
  }

  /** The first partition of what the overlay and its base make, as a raw file. */
  function flat(overlay: string): string {
    const disk = `${overlay}.raw`, partition = `${overlay}.ext4`;
    runTool("qemu-img", ["convert", "-O", "raw", overlay, disk]);
    const start = runTool("python3", ["-c", "import sys,struct; print(struct.unpack('<I', open(sys.argv[1],'rb').read(512)[454:458])[0])", disk]).trim();
    runTool("dd", [`if=${disk}`, `of=${partition}`, "bs=512", `skip=${start}`, "conv=sparse", "status=none"]);
    return partition;
  }

  function fileInside(overlay: string, path: string): string {
    return runTool("debugfs", ["-R", `cat ${path}`, `${overlay}.ext4`]);
  }
});
