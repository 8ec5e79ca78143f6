import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { probed } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { run } from "../../disk/task.ts";

interface Known { readonly at: number; readonly magic: string; readonly is: string; readonly advice: "convert" | "unpack" | "cd" }

/** What people pick that is neither a raw disk nor a format of ours. */
const KNOWN: readonly Known[] = [
  { at: 0, magic: "LUKS\xba\xbe", is: "an encrypted disk (LUKS)", advice: "convert" },
  { at: 0, magic: "\x1f\x8b", is: "compressed (gzip)", advice: "unpack" },
  { at: 0, magic: "\xfd7zXZ\0", is: "compressed (xz)", advice: "unpack" },
  { at: 0, magic: "BZh", is: "compressed (bzip2)", advice: "unpack" },
  { at: 0, magic: "\x28\xb5\x2f\xfd", is: "compressed (zstd)", advice: "unpack" },
  { at: 0, magic: "PK\x03\x04", is: "a ZIP archive", advice: "unpack" },
  { at: 0, magic: "7z\xbc\xaf\x27\x1c", is: "a 7-Zip archive", advice: "unpack" },
  { at: 257, magic: "ustar", is: "a tar archive", advice: "unpack" },
  { at: 0x8001, magic: "CD001", is: "the image of a CD or DVD", advice: "cd" },
];

const HEAD = 0x8010;
const SECTOR = 512;
const BOOT_CODE = 440;

/** Refuses by name what would otherwise be taken for a raw disk and fail in the BIOS without a word. */
export async function refuseOthers(storage: Storage): Promise<void> {
  if (storage.size === 0) throw new DiskError("invalid-format", "the file is empty", { path: storage.name });
  const head = new Uint8Array(Math.min(HEAD, storage.size)), tail = new Uint8Array(Math.min(SECTOR, storage.size));
  if ((await run(probed(storage))).name !== "raw") return;
  await storage.read(0, head);
  await storage.read(storage.size - tail.length, tail);
  const found = KNOWN.find(({ at, magic }) => latin1(head, at, magic.length) === magic)
    ?? (latin1(tail, 0, 8) === "conectix" ? { is: "a Virtual PC disk (VHD)", advice: "convert" as const } : undefined);
  if (!found) return;
  const { is, advice } = found;
  throw new DiskError("unsupported", `this is ${is}${isoNote(head, advice)}${adviceFor(advice, storage.name)}`, { path: storage.name, operation: "open" });
}

/** Refuses a disk that the BIOS could not boot from. */
export async function refuseUnbootable(disk: Disk): Promise<void> {
  const sector = new Uint8Array(SECTOR);
  await disk.read(0, sector);
  const context = { path: disk.name, operation: "boot" };
  if (sector[510] !== 0x55 || sector[511] !== 0xaa) {
    throw new DiskError("unsupported", "this disk is not bootable: its first sector bears no boot signature. It may be a data disk, a single partition, or not a disk image at all", context);
  }
  if (sector.subarray(0, BOOT_CODE).every((byte) => byte === 0)) {
    throw new DiskError("unsupported", "this disk holds no boot code for a BIOS: it may be made for UEFI only, which v86 does not have", context);
  }
}

function adviceFor(advice: Known["advice"], name: string): string {
  const file = name.split("/").pop() ?? name;
  switch (advice) {
    case "convert": return `, a format this version cannot open yet. Convert it with: qemu-img convert -O qcow2 ${file} ${file.replace(/\.\w+$/, "")}.qcow2`;
    case "unpack": return ". Unpack it first, then pick the disk image inside";
    case "cd": return ". This page boots hard disks: install the system to a disk image first";
  }
}

/** A CD image with a boot sector of a disk ("isohybrid") would start, but not find its files. */
function isoNote(head: Uint8Array, advice: Known["advice"]): string {
  return advice === "cd" && head[510] === 0x55 && head[511] === 0xaa ? " (isohybrid)" : "";
}

function latin1(bytes: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}
