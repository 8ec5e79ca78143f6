import { bytes, Struct, u32, u64 } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

/** "OOOM". Version 1 has the byte order of the machine that wrote it, so there it may stand the other way round. */
export const MAGIC = 0x4f4f4f4d;
const MAGIC_SWAPPED = 0x4d4f4f4f;
export const SECTOR = 512;
/** The longest backing file name that QEMU's layout holds, with the NUL that ends it. */
export const NAME_ROOM = 1024;

/** Version 2 as QEMU has it: a C structure with its padding. */
export const QemuFields = new Struct({
  magic: u32, version: u32, backing: bytes(NAME_ROOM), mtime: u32, padding: u32, size: u64, sectorSize: u32, end: u32,
});
const FIELDS_1 = { magic: u32, version: u32, backing: bytes(256), mtime: u32, size: u64, sectorSize: u32 };
const Uml1Big = new Struct(FIELDS_1), Uml1Little = new Struct(FIELDS_1, "little");
const Uml2 = new Struct({ magic: u32, version: u32, backing: bytes(4096), mtime: u32, size: u64, sectorSize: u32 });
const Uml3 = new Struct({ magic: u32, version: u32, mtime: u32, size: u64, sectorSize: u32, alignment: u32, format: u32, backing: bytes(4096) });
/** Version 3 as 64-bit machines wrote it until 2005, with padding; its time is in the first half of eight bytes. */
const Uml3Padded = new Struct({ magic: u32, version: u32, mtime: u32, rest: u32, size: u64, sectorSize: u32, alignment: u32, format: u32, backing: bytes(4096), end: u32 });
const LARGEST_HEADER = Uml3Padded.size;
/** More than any page size that UML aligns to. */
const MAX_ALIGNMENT = 2 ** 20;

/** A checked header. Offsets and sizes in bytes. */
export interface CowHeader {
  /** Who wrote it, and in which version: only QEMU's is written by us. */
  readonly layout: "qemu-2" | "uml-1" | "uml-2" | "uml-3";
  readonly size: number;
  readonly sectorSize: number;
  readonly backingFile: string | undefined;
  /** When the backing file was last changed, in seconds since 1970; UML refuses another. 0: unknown. */
  readonly mtime: number;
  readonly bitmapOffset: number;
  /** Where the first sector stands; every other one stands in its place behind it. */
  readonly dataOffset: number;
}

interface Fields { readonly backing: Uint8Array; readonly mtime: number; readonly size: number; readonly sectorSize: number }

/** The version that the first bytes claim; `undefined`: no cow image. */
export function versionOf(head: Uint8Array): number | undefined {
  if (head.length < 8) return undefined;
  const view = new DataView(head.buffer, head.byteOffset), magic = view.getUint32(0);
  if (magic === MAGIC) return view.getUint32(4);
  return magic === MAGIC_SWAPPED && view.getUint32(4, true) === 1 ? 1 : undefined;
}

export function* readHeader(file: Storage): Task<CowHeader> {
  const head = new Uint8Array(LARGEST_HEADER), path = file.name;
  yield read(file, 0, head);
  const version = versionOf(head);
  if (version === undefined) throw new DiskError("invalid-format", "not a cow image: the magic is missing", { path, format: "cow" });
  switch (version) {
    case 1: {
      const struct = head[0] === 0x4f ? Uml1Big : Uml1Little;
      return checked(file, "uml-1", struct.parse(head), struct.size, 0);
    }
    case 2: {
      // Both version 2s bear the same magic. Where QEMU's has its sector size UML's has its name, or the zeros behind it.
      const ours = QemuFields.parse(head);
      return ours.sectorSize === SECTOR ? checked(file, "qemu-2", ours, QemuFields.size, 0) : checked(file, "uml-2", Uml2.parse(head), Uml2.size, 0);
    }
    case 3: {
      // A padded header has its last number, 0, where the other one's name begins.
      const packed = Uml3.parse(head), padded = packed.backing.subarray(0, 4).every((byte) => byte === 0);
      const fields = padded ? Uml3Padded.parse(head) : packed;
      return checked(file, "uml-3", fields, padded ? Uml3Padded.size : Uml3.size, fields.alignment);
    }
    default: throw new DiskError("unsupported", `cow version ${version}; versions 1, 2 and 3 exist`, { path, offset: 4, format: "cow" });
  }
}

/** `alignment`: of the bitmap and of the data; 0: the data alone is aligned, to sectors. */
function checked(file: Storage, layout: CowHeader["layout"], fields: Fields, headerSize: number, alignment: number): CowHeader {
  const fail = (what: string): never => { throw new DiskError("corrupt", what, { path: file.name, format: "cow" }); };
  const { sectorSize, mtime } = fields, size = fields.size - (fields.size % SECTOR);
  if (!isPowerOfTwo(sectorSize) || sectorSize < SECTOR || sectorSize > MAX_ALIGNMENT) fail(`sectors of ${sectorSize} bytes are impossible`);
  if (layout === "uml-3" && (!isPowerOfTwo(alignment) || alignment < SECTOR || alignment > MAX_ALIGNMENT)) fail(`the alignment ${alignment} is impossible`);
  const bitmapOffset = roundUp(headerSize, alignment || 1), bits = Math.ceil(size / sectorSize), length = Math.ceil(bits / 8);
  // UML's first two versions reserve one byte too little for a number of sectors that eight does not divide.
  const short = layout === "uml-1" || layout === "uml-2", reserved = short ? Math.floor((size + sectorSize - 1) / (8 * sectorSize)) : length;
  const dataOffset = roundUp(bitmapOffset + reserved, alignment || sectorSize);
  if (!Number.isSafeInteger(dataOffset + size)) fail(`a disk of ${size} bytes does not fit any file`);
  if (bitmapOffset + length > dataOffset) fail("the bitmap's last byte stands where the data begins, as UML's old versions did with some sizes: which of the last sectors were written cannot be told");
  if (file.size < bitmapOffset + reserved) fail("the file is truncated: it ends before its bitmap does");
  const name = decodeText(fields.backing, file.name);
  return { layout, size, sectorSize, mtime, bitmapOffset, dataOffset, backingFile: name === "" ? undefined : name };
}

export function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}
