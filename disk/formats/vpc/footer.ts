import { bytes, flags64, Struct, u16, u32, u64, u8 } from "../../bytes/struct.ts";
import { encodeText } from "../../bytes/text.ts";
import { randomUuid } from "../../bytes/uuid.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { geometryOf, sectorsOf, type Geometry } from "./geometry.ts";

export const SECTOR = 512;
export const TYPE = { fixed: 2, dynamic: 3, differencing: 4 } as const;
export const VERSION = 0x0001_0000;
export const COOKIE = "conectix";
/** QEMU's and Hyper-V's bound: 2040 GiB. */
export const MAX_SECTORS = 0xff00_0000;
/** No header follows. */
export const NOWHERE = 2n ** 64n - 1n;
/** Times are counted from the beginning of 2000. */
const EPOCH = Date.UTC(2000, 0, 1) / 1000;

/** "Hard Disk Footer Format": at the end of the file, and but for fixed disks a copy at its beginning. */
export const FooterFields = new Struct({
  cookie: bytes(8), features: u32, version: u32, dataOffset: flags64, timestamp: u32, creator: bytes(4), creatorVersion: u32, creatorHost: bytes(4),
  originalSize: u64, currentSize: u64, cylinders: u16, heads: u8, sectorsPerTrack: u8, type: u32, checksum: u32, uuid: bytes(16), savedState: u8, reserved: bytes(427),
});

export type Footer = ReturnType<typeof FooterFields.parse>;

/** Whether the structure at `at` begins with `cookie`. */
export function begins(structure: Uint8Array, cookie: string): boolean {
  return encodeText(cookie).every((byte, i) => structure[i] === byte);
}

/** "The one's complement of the sum of all the bytes" but those of the checksum, which stand at `at`. */
export function checksum(structure: Uint8Array, at: number): number {
  let sum = 0;
  for (const [i, byte] of structure.entries()) if (i < at || i >= at + 4) sum += byte;
  return ~sum >>> 0;
}

/**
 * The footer, as the bytes it is. That of a fixed disk at the end of the file goes first: what stands at the beginning of
 * one is the guest's. Else the copy at the beginning, or what is at the end. Virtual PC before 2004 wrote 511 bytes; the
 * one that is missing counts as zero.
 */
export function* readFooter(file: Storage): Task<Uint8Array> {
  let found: number | undefined, best: Uint8Array | undefined;
  for (const offset of [file.size - SECTOR, file.size - SECTOR + 1, 0]) {
    if (offset < 0) continue;
    const footer = new Uint8Array(SECTOR);
    yield read(file, offset, footer);
    if (!begins(footer, COOKIE)) continue;
    const { checksum: wanted, type } = FooterFields.parse(footer), sound = checksum(footer, FooterFields.offsetOf("checksum")) === wanted;
    if (sound && (type === TYPE.fixed || offset === 0)) return footer;
    if (sound) best ??= footer;
    found ??= offset;
  }
  if (best !== undefined) return best;
  const context = { path: file.name, offset: found, format: "vpc" };
  if (found !== undefined) throw new DiskError("corrupt", "the checksum of the VHD footer is wrong, and there is no sound copy", context);
  throw new DiskError("invalid-format", "not a VHD image: the cookie 'conectix' is missing", context);
}

/** Who made the image, for programs whose disks have the size that the footer tells; the others' have that of the geometry. */
const BY_SIZE = new Set(["qem2", "win ", "d2v ", "tap\0", "CTXS", "wa\0\0", "vbox"]);

/** The guest's size in bytes. FORMAT.md, "The size of the disk". */
export function sizeOf(footer: Footer, path: string): number {
  const creator = String.fromCharCode(...footer.creator), geometry = sectorsOf(footer);
  const sectors = BY_SIZE.has(creator) || geometry === sectorsOf(geometryOf(Infinity)) ? Math.floor(footer.currentSize / SECTOR) : geometry;
  if (sectors > MAX_SECTORS) throw new DiskError("unsupported", `a VHD disk of ${sectors} sectors; 2040 GiB (${MAX_SECTORS}) is the bound`, { path, offset: FooterFields.offsetOf("currentSize"), format: "vpc" });
  return sectors * SECTOR;
}

/** A new image's footer, as QEMU writes it. `bySize`: the disk's size is `size`; else it is that of the geometry. */
export function newFooter(type: number, size: number, geometry: Geometry, bySize: boolean): Uint8Array {
  const footer = FooterFields.format({
    cookie: encodeText(COOKIE), features: 2, version: VERSION, dataOffset: type === TYPE.fixed ? NOWHERE : BigInt(SECTOR), timestamp: Math.floor(Date.now() / 1000) - EPOCH,
    creator: encodeText(bySize ? "qem2" : "qemu"), creatorVersion: 0x0005_0003, creatorHost: encodeText("Wi2k"), originalSize: size, currentSize: size, ...geometry,
    type, checksum: 0, uuid: randomUuid(false), savedState: 0, reserved: new Uint8Array(427),
  });
  return sealed(footer, FooterFields.offsetOf("checksum"));
}

/** `structure` with its checksum, at `at`. */
export function sealed(structure: Uint8Array, at: number): Uint8Array {
  new DataView(structure.buffer).setUint32(at, checksum(structure, at));
  return structure;
}
