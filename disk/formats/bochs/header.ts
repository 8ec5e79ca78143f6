import { bytes, Struct, u32, u64 } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

const MAGIC = "Bochs Virtual HD Image", SECTOR = 512, ENTRY_SIZE = 4;
const VERSION_1 = 0x0001_0000, VERSION_2 = 0x0002_0000;
/** QEMU's bounds (block/bochs.c). */
const LIMITS = { catalog: 2 ** 20, extent: 8 * 2 ** 20 } as const;

const COMMON = { magic: bytes(32), type: bytes(16), subtype: bytes(16), version: u32, headerSize: u32, catalog: u32, bitmap: u32, extent: u32 };
const Common = new Struct(COMMON, "little"), Header1 = new Struct({ ...COMMON, size: u64 }, "little"), Header2 = new Struct({ ...COMMON, timestamp: u32, size: u64 }, "little");

/** A checked header. Offsets and sizes in bytes. */
export interface BochsHeader {
  readonly size: number;
  /** Where the catalog stands: for each extent of the disk its number in the file. */
  readonly catalogAt: number;
  readonly catalogEntries: number;
  /** Guest bytes of an extent. */
  readonly extentSize: number;
  /** What stands before an extent's data in the file: a bit for each of its sectors. */
  readonly bitmapSize: number;
  /** Where the first extent stands. */
  readonly dataAt: number;
}

export function isBochs(head: Uint8Array): boolean {
  return head.length >= SECTOR && String.fromCharCode(...head.subarray(0, MAGIC.length + 1)) === `${MAGIC}\0`;
}

export function* readHeader(file: Storage): Task<BochsHeader> {
  const fail = (kind: "invalid-format" | "unsupported" | "corrupt", what: string, offset?: number): never => { throw new DiskError(kind, what, { path: file.name, offset, format: "bochs" }); };
  const head = new Uint8Array(SECTOR);
  yield read(file, 0, head);
  if (!isBochs(head)) fail("invalid-format", "not a Bochs image: the magic is missing");
  const { version, ...kind } = Common.parse(head);
  const type = decodeText(kind.type, file.name), subtype = decodeText(kind.subtype, file.name);
  if (type !== "Redolog" || subtype !== "Growing") fail("unsupported", `a Bochs image of type ${type} ${subtype}; only growing ones stand alone and are read. Commit it to its base image with bximage`, 32);
  if (version !== VERSION_1 && version !== VERSION_2) fail("unsupported", `version ${version} of Bochs's format; versions 1 and 2 are known`, 64);
  const fields = (version === VERSION_1 ? Header1 : Header2).parse(head), { headerSize, catalog, bitmap, extent } = fields, size = fields.size - (fields.size % SECTOR);
  if (catalog > LIMITS.catalog) fail("unsupported", `a catalog of ${catalog} entries; at most ${LIMITS.catalog} are read`, 72);
  if (!isPowerOfTwo(extent) || extent < SECTOR) fail("corrupt", `extents of ${extent} bytes are impossible`, 80);
  if (extent > LIMITS.extent) fail("unsupported", `extents of ${extent} bytes; at most ${LIMITS.extent} are read`, 80);
  if (catalog < Math.ceil(size / extent)) fail("corrupt", `a catalog of ${catalog} entries is too small for a disk of ${size} bytes`, 72);
  const bitmapSize = Math.ceil(bitmap / SECTOR) * SECTOR, dataAt = headerSize + catalog * ENTRY_SIZE;
  if (bitmapSize * 8 < extent / SECTOR) fail("corrupt", `bitmaps of ${bitmap} bytes are too small for extents of ${extent}`, 76);
  if (headerSize < SECTOR || headerSize % ENTRY_SIZE !== 0) fail("corrupt", `a header of ${headerSize} bytes is impossible`, 68);
  if (dataAt > file.size) fail("corrupt", "the file is truncated: it ends before its catalog does", 68);
  return { size, catalogAt: headerSize, catalogEntries: catalog, extentSize: extent, bitmapSize, dataAt };
}

function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}
