import { flags64, Struct, u32, u64 } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { BackingReference } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

/** "QED\0" */
export const MAGIC = 0x00444551;
export const FEATURE = { backingFile: 1n << 0n, needCheck: 1n << 1n, noProbe: 1n << 2n } as const;
/** docs/interop/qed_spec.rst, "Header"; a name is bounded by QEMU's own buffer. */
export const LIMITS = { clusterSize: { min: 4096, max: 2 ** 26 }, tableSize: 16, backingName: 1023 } as const;

export const HeaderFields = new Struct({
  magic: u32, clusterSize: u32, tableSize: u32, headerSize: u32, features: flags64, compatible: flags64, autoclear: flags64,
  l1Offset: u64, size: u64, backingOffset: u32, backingLength: u32,
}, "little");

/** A checked header. Sizes in bytes. */
export interface QedHeader {
  readonly clusterSize: number;
  /** Of each L1 and L2 table. */
  readonly tableBytes: number;
  /** The header and whatever else stands before the first regular cluster. */
  readonly headerBytes: number;
  readonly features: bigint;
  readonly autoclear: bigint;
  readonly l1Offset: number;
  readonly size: number;
  readonly backing: BackingReference | undefined;
}

type Fail = (kind: "invalid-format" | "corrupt" | "unsupported", what: string, offset?: number) => never;

export function* readHeader(file: Storage): Task<QedHeader> {
  const fail: Fail = (kind, what, offset) => { throw new DiskError(kind, what, { path: file.name, offset, format: "qed" }); };
  const head = new Uint8Array(HeaderFields.size);
  yield read(file, 0, head);
  if (new DataView(head.buffer).getUint32(0, true) !== MAGIC) fail("invalid-format", "not a qed image: the magic is missing");
  const fields = HeaderFields.parse(head), { clusterSize, features } = fields;
  const foreign = features & ~(FEATURE.backingFile | FEATURE.needCheck | FEATURE.noProbe);
  if (foreign !== 0n) fail("unsupported", `the image needs features that no qed reader knows: 0x${foreign.toString(16)}`, 16);
  checkGeometry(fields, file.size, fail);
  const headerBytes = fields.headerSize * clusterSize, tableBytes = fields.tableSize * clusterSize;
  const backing = (features & FEATURE.backingFile) === 0n ? undefined : yield* readBacking(file, fields, headerBytes, fail);
  return { clusterSize, tableBytes, headerBytes, features, autoclear: fields.autoclear, l1Offset: fields.l1Offset, size: fields.size, backing };
}

type Fields = ReturnType<typeof HeaderFields.parse>;

function checkGeometry({ clusterSize, tableSize, headerSize, l1Offset, size }: Fields, fileSize: number, fail: Fail): void {
  const { min, max } = LIMITS.clusterSize, tableBytes = tableSize * clusterSize;
  if (!isPowerOfTwo(clusterSize) || clusterSize < min || clusterSize > max) fail("corrupt", `clusters of ${clusterSize} bytes are impossible`, 4);
  if (!isPowerOfTwo(tableSize) || tableSize > LIMITS.tableSize) fail("corrupt", `tables of ${tableSize} clusters are impossible`, 8);
  if (headerSize === 0) fail("corrupt", "the header takes no cluster", 12);
  if (size % 512 !== 0 || size > maxSize(clusterSize, tableSize)) fail("corrupt", `a disk of ${size} bytes is impossible in this image`, 48);
  const end = fileSize - (fileSize % clusterSize);
  if (l1Offset % clusterSize !== 0 || l1Offset < headerSize * clusterSize) fail("corrupt", `the L1 table stands at an impossible place, 0x${l1Offset.toString(16)}`, 40);
  if (l1Offset + tableBytes > end) fail("corrupt", "the file is truncated: it ends before the L1 table does", 40);
}

function* readBacking(file: Storage, fields: Fields, headerBytes: number, fail: Fail): Task<BackingReference | undefined> {
  const { backingOffset, backingLength, features } = fields;
  if (backingLength > LIMITS.backingName) fail("unsupported", `the backing file name takes ${backingLength} bytes; at most ${LIMITS.backingName} are possible`, 60);
  if (backingOffset + backingLength > headerBytes) fail("corrupt", "the backing file name does not lie within the header's clusters", 56);
  const name = new Uint8Array(backingLength);
  yield read(file, backingOffset, name);
  return backingLength === 0 ? undefined : { file: decodeText(name, file.name), format: (features & FEATURE.noProbe) === 0n ? undefined : "raw" };
}

/** The largest disk that tables of this geometry reach. */
export function maxSize(clusterSize: number, tableSize: number): number {
  return ((tableSize * clusterSize) / 8) ** 2 * clusterSize;
}

export function isPowerOfTwo(value: number): boolean {
  return Number.isInteger(Math.log2(value));
}

/** The end of the regular clusters: what stands behind the last whole one is nobody's. */
export function endOf(file: Storage, { clusterSize }: QedHeader): number {
  return file.size - (file.size % clusterSize);
}
