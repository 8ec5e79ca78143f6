import { bytes, flags64, Struct, u16, u32, u64, u8 } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError, type DiskErrorKind } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

export const SECTOR = 512, ENTRY_SIZE = 4;
/** "KDMV" and "COWD" as little-endian numbers. */
export const MAGIC = { hosted: 0x564d_444b, cowd: 0x4457_4f43 } as const;
export const FLAG = { newlines: 1 << 0, redundant: 1 << 1, zeroGrain: 1 << 2, compressed: 1 << 16, markers: 1 << 17 } as const;
export const DEFLATE = 1;
/** The grain directory's place is told by the footer. */
const AT_END = 2n ** 64n - 1n;
/** Behind the grain directory of a stream: a marker, the footer, another marker, a sector each. */
const FOOTER_SIZE = 3 * SECTOR, MARKER = { endOfStream: 0, footer: 3 } as const;
/** QEMU's bounds (block/vmdk.c), and the largest grain that is read or written as a whole. */
export const LIMITS = { perTable: 512, grain: 2 ** 30, wholeGrain: 2 ** 25 } as const;
const COWD_PER_TABLE = 4096, COWD_HEADER_SIZE = 2048;

/** Virtual Disk Format 5.0, "Hosted Sparse Extent Header": packed, places and sizes in sectors. */
export const HostedFields = new Struct({
  magic: u32, version: u32, flags: u32, capacity: u64, grainSize: u64, descriptorOffset: u64, descriptorSize: u64, perTable: u32,
  redundantOffset: flags64, directoryOffset: flags64, overhead: u64, unclean: u8, newlines: bytes(4), compression: u16, rest: bytes(433),
}, "little");

/** The same, "ESX Server Sparse Extents". A root disk has its geometry where others have their parent's name. */
export const CowdFields = new Struct({
  magic: u32, version: u32, flags: u32, capacity: u32, grainSize: u32, directoryOffset: u32, directoryEntries: u32, freeSector: u32,
  parent: bytes(1024), parentGeneration: u32, generation: u32, name: bytes(60), description: bytes(512), savedGeneration: u32,
  reserved: bytes(8), unclean: u32, rest: bytes(396),
}, "little");

/** A checked header of a sparse extent. Places and sizes are in bytes. */
export interface SparseHeader {
  readonly kind: "hosted" | "cowd";
  readonly version: number;
  /** Guest bytes. */
  readonly capacity: number;
  readonly grainSize: number;
  /** Entries of a grain table. */
  readonly perTable: number;
  /** Entries of the grain directory. */
  readonly entries: number;
  readonly directory: number;
  /** Where the second grain directory stands. */
  readonly redundant: number | undefined;
  /** No guest data stands before here. */
  readonly overhead: number;
  readonly zeroGrain: boolean;
  readonly compressed: boolean;
  /** Each compressed grain begins with its guest sector and its length. */
  readonly markers: boolean;
  /** The file is a finished stream: a footer at its end tells where the directory is. */
  readonly footer: boolean;
  /** Where the embedded descriptor stands. */
  readonly descriptor: { readonly offset: number; readonly length: number } | undefined;
  /** The parent's name, as a COWD has it. */
  readonly parent: string | undefined;
}

type Fail = (kind: DiskErrorKind, what: string, offset?: number) => never;

/** The header of a sparse extent of either kind. */
export function* readSparseHeader(file: Storage): Task<SparseHeader> {
  const fail: Fail = (kind, what, offset) => { throw new DiskError(kind, what, { path: file.name, offset, format: "vmdk" }); };
  const head = new Uint8Array(COWD_HEADER_SIZE);
  yield read(file, 0, head);
  const magic = new DataView(head.buffer).getUint32(0, true);
  if (magic === MAGIC.cowd) return checkCowd(CowdFields.parse(head), file, fail);
  if (magic !== MAGIC.hosted) fail("invalid-format", "is no sparse extent: the magic is missing", 0);
  const front = HostedFields.parse(head), footer = front.directoryOffset === AT_END;
  const fields = footer ? yield* readFooter(file, fail) : front;
  return checkHosted(fields, { front, footer }, file, fail);
}

/** Same, "Stream-Optimized Compressed Sparse Extents": the footer takes the header's place. */
function* readFooter(file: Storage, fail: Fail): Task<Fields> {
  const at = Math.ceil(file.size / SECTOR) * SECTOR - FOOTER_SIZE, tail = new Uint8Array(FOOTER_SIZE), view = new DataView(tail.buffer);
  if (at < SECTOR) fail("corrupt", "the file is truncated: its grain directory should be told of at its end", file.size);
  yield read(file, at, tail);
  const word = (sector: number, offset: number): number => view.getUint32(sector * SECTOR + offset, true);
  const marker = (sector: number, type: number): boolean => word(sector, 8) === 0 && word(sector, 12) === type;
  const ends = marker(2, MARKER.endOfStream) && word(2, 0) === 0 && word(2, 4) === 0;
  if (word(1, 0) !== MAGIC.hosted || !marker(0, MARKER.footer) || !ends) fail("corrupt", "Invalid footer: the file is truncated, or something was appended to it", at);
  const fields = HostedFields.parse(tail, SECTOR);
  if (fields.directoryOffset === AT_END) fail("corrupt", "the footer does not say where the grain directory is", at);
  return fields;
}

type Fields = ReturnType<typeof HostedFields.parse>;

function checkHosted(fields: Fields, { front, footer }: { front: Fields; footer: boolean }, file: Storage, fail: Fail): SparseHeader {
  const { version, flags, perTable, compression } = fields, descriptor = { offset: front.descriptorOffset * SECTOR, length: front.descriptorSize * SECTOR };
  if (version > 3) fail("unsupported", `Unsupported VMDK version ${version}; 1 to 3 are known`, HostedFields.offsetOf("version"));
  if (perTable < 1 || perTable > LIMITS.perTable) fail("corrupt", `grain tables of ${perTable} entries; 1 to ${LIMITS.perTable} are possible`, HostedFields.offsetOf("perTable"));
  if (compression > DEFLATE) fail("unsupported", `compression method ${compression}; only deflate (1) is known`, HostedFields.offsetOf("compression"));
  if (fields.overhead * SECTOR > file.size) fail("corrupt", `File truncated, expecting at least ${fields.overhead * SECTOR} bytes`, HostedFields.offsetOf("overhead"));
  const has = (flag: number): boolean => (flags & flag) !== 0, redundant = has(FLAG.redundant) ? Number(fields.redundantOffset) * SECTOR : 0;
  return checkTables({
    kind: "hosted", version, perTable, footer, capacity: fields.capacity * SECTOR, grainSize: fields.grainSize * SECTOR, entries: 0,
    directory: Number(fields.directoryOffset) * SECTOR, redundant: redundant === 0 ? undefined : redundant, overhead: fields.overhead * SECTOR,
    zeroGrain: has(FLAG.zeroGrain), compressed: compression === DEFLATE, markers: has(FLAG.markers),
    descriptor: descriptor.offset === 0 || descriptor.length === 0 ? undefined : descriptor, parent: undefined,
  }, file, fail);
}

function checkCowd(fields: ReturnType<typeof CowdFields.parse>, file: Storage, fail: Fail): SparseHeader {
  // A geometry's first number is below 2^24, so its fourth byte is 0; a name's is not.
  const named = fields.parent[3] !== 0, header = checkTables({
    kind: "cowd", version: fields.version, perTable: COWD_PER_TABLE, footer: false, capacity: fields.capacity * SECTOR, grainSize: fields.grainSize * SECTOR, entries: 0,
    directory: fields.directoryOffset * SECTOR, redundant: undefined, overhead: 0, zeroGrain: false, compressed: false, markers: false,
    descriptor: undefined, parent: named ? decodeText(fields.parent, file.name) : undefined,
  }, file, fail);
  if (fields.directoryEntries < header.entries) fail("corrupt", `the grain directory has ${fields.directoryEntries} entries; a disk of this size needs ${header.entries}`, CowdFields.offsetOf("directoryEntries"));
  return header;
}

/** Fills in `entries`, if the grain directory can be where it should. The second one is looked at only for writing. */
function checkTables(header: SparseHeader, file: Storage, fail: Fail): SparseHeader {
  const { capacity, grainSize, perTable, directory, compressed } = header;
  if (!Number.isSafeInteger(capacity)) fail("unsupported", "a disk larger than disk86 can address (8 PiB)");
  if (grainSize < SECTOR || grainSize > LIMITS.grain) fail("corrupt", `Invalid granularity: grains of ${grainSize} bytes`);
  if (compressed && grainSize > LIMITS.wholeGrain) fail("unsupported", `compressed grains of ${grainSize} bytes; disk86's bound is ${LIMITS.wholeGrain}`);
  const entries = Math.ceil(capacity / (grainSize * perTable));
  if (entries > 0 && directory < SECTOR) fail("corrupt", `the grain directory stands at an impossible place, ${directory}`);
  if (entries > 0 && directory + entries * ENTRY_SIZE > file.size) fail("corrupt", "the file is truncated: it ends before its grain directory does");
  return { ...header, entries };
}

export function corrupt(file: Storage, what: string, offset?: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "vmdk" });
}

export function unsupported(file: Storage, what: string, operation?: string): DiskError {
  return new DiskError("unsupported", what, { path: file.name, format: "vmdk", operation });
}
