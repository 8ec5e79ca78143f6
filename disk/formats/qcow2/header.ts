import { Struct, u32, u64, u8, flags64, bytes } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import { INCOMPATIBLE } from "./features.ts";
import { readExtensions, type Extension, type ExtensionSummary } from "./extensions.ts";

export const MAGIC = 0x514649fb;
/** QEMU's bounds (block/qcow2.h); what is larger is refused before it is read. */
export const LIMITS = {
  l1Bytes: 32 * 2 ** 20, refcountTableBytes: 8 * 2 ** 20, snapshots: 65536, backingName: 1023,
  clusterBits: { min: 9, max: 21 }, refcountOrder: 6,
} as const;

/** The fields of both versions. docs/interop/qcow2.rst, "Header". */
export const HeaderFields = new Struct({
  magic: u32, version: u32, backingOffset: u64, backingLength: u32, clusterBits: u32, size: u64, crypt: u32,
  l1Size: u32, l1Offset: u64, refcountTableOffset: u64, refcountTableClusters: u32, snapshotCount: u32, snapshotsOffset: u64,
});

/** What version 3 adds at byte 72. */
export const HeaderFields3 = new Struct({
  incompatible: flags64, compatible: flags64, autoclear: flags64, refcountOrder: u32, headerLength: u32,
  compressionType: u8, padding: bytes(7),
});

export const V2_LENGTH = HeaderFields.size, V3_MIN_LENGTH = 104;

/** A checked header: every offset is aligned and every length within its bound. Sizes in bytes unless named otherwise. */
export interface Qcow2Header extends ExtensionSummary {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** Guest size: a multiple of 512, as QEMU truncates it. */
  readonly size: number;
  readonly crypt: number;
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  /** log2 of the bits of one refcount. */
  readonly refcountOrder: number;
  readonly headerLength: number;
  readonly compressionType: "zlib" | "zstd";
  readonly backingFile: string | undefined;
  readonly extensions: readonly Extension[];
}

/** `lenient`: for a check, which judges the places of the refcount and snapshot tables itself. */
export function* readHeader(file: Storage, lenient = false): Task<Qcow2Header> {
  const path = file.name;
  const fail = (kind: "invalid-format" | "corrupt" | "unsupported", what: string, offset?: number): never => {
    throw new DiskError(kind, what, { path, offset, format: "qcow2" });
  };
  const head = new Uint8Array(V2_LENGTH + HeaderFields3.size);
  yield read(file, 0, head);
  if (new DataView(head.buffer).getUint32(0) !== MAGIC) fail("invalid-format", "not a qcow2 image: the magic is missing");
  const fields = parseFields(head, path);
  const { version, clusterBits, headerLength } = fields;
  if (clusterBits < LIMITS.clusterBits.min || clusterBits > LIMITS.clusterBits.max) fail("unsupported", `cluster size 2^${clusterBits} is not between 512 bytes and 2 MiB`, 20);
  const clusterSize = 2 ** clusterBits;
  if (headerLength > clusterSize || headerLength % 8 !== 0) fail("corrupt", `the header length ${headerLength} does not fit`, 100);
  if (fields.refcountOrder > LIMITS.refcountOrder) fail("unsupported", `refcounts of 2^${fields.refcountOrder} bits; at most 64 bits are possible`, 96);
  checkTables(fields, clusterSize, fail, lenient);

  const first = new Uint8Array(clusterSize);
  yield read(file, 0, first);
  const end = fields.backingOffset === 0 ? clusterSize : fields.backingOffset;
  if (fields.backingOffset !== 0 && (end < headerLength || end + fields.backingLength > clusterSize || fields.backingLength > LIMITS.backingName)) {
    fail("corrupt", `the backing file name (${fields.backingLength} bytes) does not lie in the header cluster`, 8);
  }
  const backingFile = fields.backingOffset === 0 || fields.backingLength === 0 ? undefined : decodeText(first.subarray(end, end + fields.backingLength), path);
  const extensions = readExtensions(first.subarray(0, end), headerLength, path);
  return {
    ...extensions, version, clusterBits, clusterSize, headerLength, backingFile,
    size: fields.size - (fields.size % 512), crypt: fields.crypt,
    l1Size: fields.l1Size, l1Offset: fields.l1Offset,
    refcountTableOffset: fields.refcountTableOffset, refcountTableClusters: fields.refcountTableClusters,
    snapshotCount: fields.snapshotCount, snapshotsOffset: fields.snapshotsOffset,
    incompatible: fields.incompatible, compatible: fields.compatible, autoclear: fields.autoclear,
    refcountOrder: fields.refcountOrder, compressionType: compressionType(fields, path),
  };
}

type Fields = ReturnType<typeof parseFields>;

function parseFields(head: Uint8Array, path: string) {
  const common = HeaderFields.parse(head);
  if (common.version !== 2 && common.version !== 3) {
    throw new DiskError("unsupported", `qcow2 version ${common.version}; versions 2 and 3 exist`, { path, offset: 4, format: "qcow2" });
  }
  const version: 2 | 3 = common.version;
  if (version === 2) return { ...common, version, incompatible: 0n, compatible: 0n, autoclear: 0n, refcountOrder: 4, headerLength: V2_LENGTH, compressionType: 0 };
  const added = HeaderFields3.parse(head, V2_LENGTH);
  if (added.headerLength < V3_MIN_LENGTH) throw new DiskError("corrupt", `the header length ${added.headerLength} is too short for version 3`, { path, offset: 100, format: "qcow2" });
  return { ...common, ...added, version, compressionType: added.headerLength > V3_MIN_LENGTH ? added.compressionType : 0 };
}

type Fail = (kind: "corrupt" | "unsupported", what: string, offset?: number) => never;

/** Throws where no L1 table of a disk of `size` bytes can stand at `offset` with `entries` entries. */
export function checkMappingTable({ clusterSize, incompatible }: Pick<Qcow2Header, "clusterSize" | "incompatible">, offset: number, entries: number, size: number, fail: Fail = (kind, what) => { throw new DiskError(kind, what); }): void {
  const entry = (incompatible & INCOMPATIBLE.extendedL2) === 0n ? 8 : 16, coverage = clusterSize * (clusterSize / entry);
  checkTable(clusterSize, "the L1 table", offset, entries * 8, LIMITS.l1Bytes, 40, fail);
  if (!Number.isSafeInteger(size)) fail("corrupt", `a disk of ${size} bytes is larger than disk86 can address`, 24);
  if (entries < Math.ceil((size - (size % 512)) / coverage)) fail("corrupt", `the L1 table has ${entries} entries, too few for a disk of ${size} bytes`, 36);
}

function checkTable(clusterSize: number, what: string, offset: number, length: number, limit: number, at: number, fail: Fail): void {
  if (length > limit) fail("unsupported", `${what} takes ${length} bytes; QEMU's bound is ${limit}`, at);
  if (offset % clusterSize !== 0 || (length > 0 && offset === 0) || !Number.isSafeInteger(offset)) fail("corrupt", `${what} stands at an impossible place, 0x${offset.toString(16)}`, at);
}

function checkTables(fields: Fields, clusterSize: number, fail: Fail, lenient: boolean): void {
  const table = (what: string, offset: number, length: number, limit: number, at: number): void => { checkTable(clusterSize, what, offset, length, limit, at, fail); };
  checkMappingTable({ ...fields, clusterSize }, fields.l1Offset, fields.l1Size, fields.size, fail);
  if (lenient) return;
  table("the refcount table", fields.refcountTableOffset, fields.refcountTableClusters * clusterSize, LIMITS.refcountTableBytes, 48);
  if (fields.refcountTableClusters === 0) fail("corrupt", "there is no refcount table", 56);
  if (fields.snapshotCount > LIMITS.snapshots) fail("unsupported", `${fields.snapshotCount} snapshots; at most ${LIMITS.snapshots} are possible`, 60);
  table("the snapshot table", fields.snapshotsOffset, fields.snapshotCount * 40, LIMITS.snapshots * 1024, 64);
}

function compressionType(fields: Fields, path: string): "zlib" | "zstd" {
  const flagged = (fields.incompatible & INCOMPATIBLE.compressionType) !== 0n;
  if (flagged !== (fields.compressionType !== 0)) {
    throw new DiskError("corrupt", `compression type ${fields.compressionType} and its feature bit contradict each other`, { path, offset: 104, format: "qcow2" });
  }
  if (fields.compressionType > 1) throw new DiskError("unsupported", `compression type ${fields.compressionType}; zlib (0) and zstd (1) are known`, { path, offset: 104, format: "qcow2" });
  return fields.compressionType === 1 ? "zstd" : "zlib";
}

/** Sets the corrupt bit: other programs, too, then only read the image until it was repaired. Version 2 has none. */
export function* markCorrupt(file: Storage, header: Qcow2Header): Task {
  if (header.version < 3) return;
  const at = HeaderFields.size + HeaderFields3.offsetOf("incompatible") + 7, last = Number((header.incompatible | INCOMPATIBLE.corrupt) & 0xffn);
  yield write(file, at, Uint8Array.of(last));
  yield flush(file, "the corrupt bit");
}
