import { bytes, flags64, Struct, u32, u64 } from "../../bytes/struct.ts";
import { DiskError, type DiskErrorKind } from "../../errors.ts";
import type { BackingReference } from "../../image.ts";
import { BACKING, ZERO, type BlockMapLayout } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { begins, checksum, FooterFields, readFooter, SECTOR, sizeOf, TYPE } from "./footer.ts";
import { LOCATORS, readLocators, type Locator } from "./parent.ts";

export const ENTRY_SIZE = 4;
/** The BAT's entry of a block without space. */
export const UNALLOCATED = 0xffff_ffff;
export const SPARSE_COOKIE = "cxsparse";
/** QEMU's bound of the BAT (block/vpc.c), and ours of a block that can be written, which is copied in memory. */
export const LIMITS = { entries: Math.floor((2 ** 31 - 1) / 4), writable: 64 * 2 ** 20 } as const;

/** "Dynamic Disk Header Format". */
export const SparseFields = new Struct({
  cookie: bytes(8), dataOffset: flags64, batOffset: u64, version: u32, entries: u32, blockSize: u32, checksum: u32,
  parentUuid: bytes(16), parentTimestamp: u32, reserved: u32, parentName: bytes(512), locators: bytes(LOCATORS.count * LOCATORS.size), rest: bytes(256),
});

/** What a fixed image is: the disk, and a footer. */
export interface VpcFixed { readonly type: typeof TYPE.fixed; readonly size: number }

/** A checked header of a dynamic or differencing image. Sizes in bytes. */
export interface VpcSparse {
  readonly type: typeof TYPE.dynamic | typeof TYPE.differencing;
  /** The footer as it is, for its copy at the end. */
  readonly footer: Uint8Array;
  readonly size: number;
  readonly blockSize: number;
  /** A block in the file is this bitmap, with a bit for each sector, and its data. */
  readonly bitmapSize: number;
  readonly entries: number;
  readonly batOffset: number;
  /** What else has its place in the file: from, to. */
  readonly taken: readonly (readonly [number, number])[];
  readonly parent: BackingReference | undefined;
}

export type VpcHeader = VpcFixed | VpcSparse;
type Fail = (kind: DiskErrorKind, what: string, offset?: number) => never;

export function* readHeader(file: Storage): Task<VpcHeader> {
  const fail: Fail = (kind, what, offset) => { throw new DiskError(kind, what, { path: file.name, offset, format: "vpc" }); };
  const bytes = yield* readFooter(file), footer = FooterFields.parse(bytes), size = sizeOf(footer, file.name);
  const { type, dataOffset } = footer;
  if (type === TYPE.fixed) {
    const room = file.size - (file.size % SECTOR === SECTOR - 1 ? SECTOR - 1 : SECTOR);
    if (size > room) fail("corrupt", `the file is truncated: it has ${room} bytes for a disk of ${size}`, FooterFields.offsetOf("currentSize"));
    return { type, size };
  }
  if (type !== TYPE.dynamic && type !== TYPE.differencing) return fail("unsupported", `VHD type ${type}; fixed (2), dynamic (3) and differencing (4) are known`, FooterFields.offsetOf("type"));
  if (dataOffset % 512n !== 0n || dataOffset + BigInt(SparseFields.size) > BigInt(file.size)) fail("corrupt", "the dynamic disk header stands at an impossible place", FooterFields.offsetOf("dataOffset"));
  const at = Number(dataOffset), sparse = new Uint8Array(SparseFields.size);
  yield read(file, at, sparse);
  return yield* readSparse(file, { type, footer: bytes, size }, sparse, at, fail);
}

function* readSparse(file: Storage, basic: Pick<VpcSparse, "type" | "footer" | "size">, header: Uint8Array, at: number, fail: Fail): Task<VpcSparse> {
  const fields = SparseFields.parse(header), { entries, blockSize, batOffset } = fields;
  const bad = (kind: DiskErrorKind, field: keyof typeof fields, what: string): never => fail(kind, what, at + SparseFields.offsetOf(field));
  if (!begins(header, SPARSE_COOKIE)) bad("corrupt", "cookie", "the dynamic disk header is missing");
  if (checksum(header, SparseFields.offsetOf("checksum")) !== fields.checksum) bad("corrupt", "checksum", "the checksum of the dynamic disk header is wrong");
  if (blockSize < SECTOR || !Number.isInteger(Math.log2(blockSize))) bad("corrupt", "blockSize", `VHD blocks of ${blockSize} bytes; a power of two from ${SECTOR} on is possible`);
  if (entries > LIMITS.entries) bad("unsupported", "entries", `a BAT of ${entries} entries; QEMU's bound is ${LIMITS.entries}`);
  if (basic.size > entries * blockSize) bad("corrupt", "entries", `the BAT has ${entries} entries, too few for a disk of ${basic.size} bytes`);
  if (batOffset % SECTOR !== 0 || batOffset < SECTOR) bad("corrupt", "batOffset", `the BAT stands at an impossible place, ${batOffset}`);
  if (batOffset + entries * ENTRY_SIZE > file.size) bad("corrupt", "batOffset", "the file is truncated: it ends before its BAT does");
  const locators: Locator[] = basic.type === TYPE.differencing ? yield* readLocators(file, fields.locators, fields.parentName) : [];
  const parent = locators.find(({ name }) => name !== undefined);
  if (basic.type === TYPE.differencing && parent?.name === undefined) bad("corrupt", "parentName", "a differencing VHD that does not name its parent");
  return {
    ...basic, entries, blockSize, batOffset, bitmapSize: Math.ceil(blockSize / SECTOR / 8 / SECTOR) * SECTOR,
    taken: [[0, SECTOR], [at, at + SparseFields.size], [batOffset, batOffset + Math.ceil((entries * ENTRY_SIZE) / SECTOR) * SECTOR], ...locators.map(({ place }) => place)],
    parent: parent?.name === undefined ? undefined : { file: parent.name, format: "vpc" },
  };
}

/** An entry is the sector where the block's bitmap begins. */
export function batLayout({ type, blockSize, bitmapSize, entries, batOffset }: VpcSparse): BlockMapLayout {
  const vacant = type === TYPE.differencing ? BACKING : ZERO;
  return {
    format: "vpc", noun: "block", blockSize, entries, entrySize: ENTRY_SIZE, slicesAt: batOffset, firstEntry: 0, dataOffset: SECTOR + bitmapSize,
    decode(view, at) {
      const sector = view.getUint32(at);
      return sector === UNALLOCATED ? vacant : sector * SECTOR + bitmapSize;
    },
    encode: (view, at, place) => { view.setUint32(at, (place - bitmapSize) / SECTOR); },
  };
}

export function corrupt(file: Storage, what: string, offset?: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "vpc" });
}
