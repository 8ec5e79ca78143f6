import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { tiny } from "../../guests/catalog.ts";
import { guestFile, rawGuest, requireGuests } from "../support/guests.ts";
import { destroyMachinesAfterEach, makeMachine } from "../support/machine.ts";
import { tempFolder } from "../support/temp.ts";

const PROMPT = 180_000, SECTOR = 512, TIB = 2 ** 40;
/** Where guests/lib/image.sh puts the command line and the kernel; the initial RAM disk follows. */
const CMDLINE_LBA = 1, KERNEL_LBA = 64;
const LZ4_LEGACY_MAGIC = 0x184c2102;

/** An overlay in memory, above the guest's image. */
async function overlay(): Promise<Disk> {
  const base = new MemoryStorage(new Uint8Array(readFileSync(guestFile(tiny.image))), "tiny.qcow2"), below = await open(base, { readOnly: true });
  return await qcow2(below.size, base);
}

async function qcow2(size: number, base?: MemoryStorage): Promise<Disk> {
  const file = new MemoryStorage(undefined, "overlay.qcow2");
  await run(createQcow2(file, { size, backingFile: base?.name, backingFormat: base && "qcow2" }));
  return await open(file, { format: "qcow2", gate: { open: () => base ?? file } });
}

describe.skipIf(!requireGuests(tiny))("the tiny guest", () => {
  destroyMachinesAfterEach();
  const folder = tempFolder();

  test.each(["ide", "virtio"] as const)("writes the last sector of a disk of 2 TiB over %s", async (bus) => {
    const large = await qcow2(2 * TIB);
    const machine = await makeMachine({ memory: 128, drives: [{ storage: await overlay(), bus }, { storage: large, bus }] });
    machine.start();
    await machine.waitForSerial(tiny.prompt, PROMPT);
    const device = bus === "ide" ? "/dev/sdb" : "/dev/vdb";
    machine.serial.send(`echo the-end | dd of=${device} bs=512 seek=4294967295 conv=sync,fsync 2>/dev/null; dd if=${device} bs=512 skip=4294967295 2>/dev/null | head -c 7; echo; cat /sys/block/${device.slice(5)}/size\n`);
    await machine.waitForSerial(/\nthe-end\r?\n4294967296\r?\n/, PROMPT);
    const last = new Uint8Array(SECTOR);
    await large.read(2 * TIB - SECTOR, last);
    expect(new TextDecoder().decode(last.subarray(0, 7))).toBe("the-end");
  }, 400_000);

  test("boots from a kernel, initial RAM disk and command line given, without a boot loader", async () => {
    const raw = readFileSync(rawGuest(tiny, folder)), setup = KERNEL_LBA * SECTOR;
    const kernelBytes = ((raw[setup + 0x1f1] ?? 0) + 1) * SECTOR + raw.readUInt32LE(setup + 0x1f4) * 16;
    let initrd = setup + Math.ceil(kernelBytes / SECTOR) * SECTOR;
    while (raw.readUInt32LE(initrd) !== LZ4_LEGACY_MAGIC) initrd += SECTOR;
    const root = raw.readUInt32LE(0x1c6) * SECTOR, cmdline = raw.subarray(CMDLINE_LBA * SECTOR, raw.indexOf(0, CMDLINE_LBA * SECTOR)).toString();
    // No boot loader left: sector 0 keeps the partition table only.
    const disk = await overlay();
    await disk.write(0, new Uint8Array(440));
    const machine = await makeMachine({
      memory: 128, drives: [{ storage: disk, bus: "virtio" }], cmdline: `${cmdline} disk86.direct`,
      kernel: new Uint8Array(raw.subarray(setup, setup + kernelBytes)), initrd: new Uint8Array(raw.subarray(initrd, root)),
    });
    machine.start();
    await machine.waitForSerial(tiny.prompt, PROMPT);
    machine.serial.send("cat /proc/cmdline\n");
    expect(await machine.waitForSerial(/console=ttyS0[^]*disk86\.direct\r?\n/, PROMPT)).toContain("nokaslr");
  }, 400_000);
});
