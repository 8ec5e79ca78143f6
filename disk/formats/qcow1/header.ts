import { Struct, u16, u32, u64, u8 } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { BackingReference } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

/** "QFI\xfb" */
export const MAGIC = 0x514649fb;
export const VERSION = 1;
export const SECTOR = 512;
export const ENTRY_SIZE = 8;
/** QEMU's bounds: clusters and L2 tables of 512 bytes to 64 KiB, an L1 of less than 2 GiB. */
export const LIMITS = {
  clusterBits: { min: 9, max: 16 }, l2Bits: { min: 6, max: 13 }, l1Entries: Math.floor((2 ** 31 - 1) / ENTRY_SIZE), backingName: 1023,
} as const;
export const CRYPT = { none: 0, aes: 1 } as const;

export const HeaderFields = new Struct({
  magic: u32, version: u32, backingOffset: u64, backingLength: u32, mtime: u32, size: u64,
  clusterBits: u8, l2Bits: u8, padding: u16, crypt: u32, l1Offset: u64,
});

/** A checked header. Sizes in bytes. */
export interface QcowHeader {
  /** Guest size: a multiple of 512, as QEMU truncates it. */
  readonly size: number;
  readonly clusterBits: number;
  readonly clusterSize: number;
  /** log2 of the entries of one L2 table. */
  readonly l2Bits: number;
  readonly l2Bytes: number;
  readonly l1Offset: number;
  readonly l1Entries: number;
  readonly crypt: number;
  readonly backing: BackingReference | undefined;
}

type Fail = (kind: "invalid-format" | "corrupt" | "unsupported", what: string, offset?: number) => never;

export function* readHeader(file: Storage): Task<QcowHeader> {
  const fail: Fail = (kind, what, offset) => { throw new DiskError(kind, what, { path: file.name, offset, format: "qcow" }); };
  const head = new Uint8Array(HeaderFields.size), view = new DataView(head.buffer);
  yield read(file, 0, head);
  if (view.getUint32(0) !== MAGIC) fail("invalid-format", "not a qcow image: the magic is missing");
  if (view.getUint32(4) !== VERSION) fail("unsupported", `qcow version ${view.getUint32(4)}, which is not the first; open it as qcow2`, 4);
  const fields = HeaderFields.parse(head), { clusterBits, l2Bits, crypt, l1Offset } = fields;
  checkGeometry(fields, fail);
  const size = fields.size - (fields.size % SECTOR), clusterSize = 2 ** clusterBits, l1Entries = l1EntriesFor(fields.size, clusterBits, l2Bits);
  if (l1Entries > LIMITS.l1Entries) fail("unsupported", `a disk of ${fields.size} bytes needs an L1 table over QEMU's bound of 2 GiB`, 24);
  if (l1Offset % ENTRY_SIZE !== 0 || l1Offset < HeaderFields.size) fail("corrupt", `the L1 table stands at an impossible place, 0x${l1Offset.toString(16)}`, 40);
  if (l1Offset + l1Entries * ENTRY_SIZE > file.size) fail("corrupt", "the file is truncated: it ends before its L1 table does", 40);
  const backing = fields.backingOffset === 0 ? undefined : yield* readBacking(file, fields, fail);
  return { size, clusterBits, clusterSize, l2Bits, l2Bytes: 2 ** l2Bits * ENTRY_SIZE, l1Offset, l1Entries, crypt, backing };
}

type Fields = ReturnType<typeof HeaderFields.parse>;

function checkGeometry({ clusterBits, l2Bits, crypt, size }: Fields, fail: Fail): void {
  if (size <= 1) fail("corrupt", `a disk of ${size} bytes; QEMU wants at least 2`, 24);
  if (clusterBits < LIMITS.clusterBits.min || clusterBits > LIMITS.clusterBits.max) fail("unsupported", `cluster size 2^${clusterBits} is not between 512 bytes and 64 KiB`, 32);
  if (l2Bits < LIMITS.l2Bits.min || l2Bits > LIMITS.l2Bits.max) fail("unsupported", `L2 tables of 2^${l2Bits} entries are not between 512 bytes and 64 KiB`, 33);
  if (crypt > CRYPT.aes) fail("unsupported", `the unknown encryption method ${crypt}`, 36);
}

function* readBacking(file: Storage, { backingOffset, backingLength }: Fields, fail: Fail): Task<BackingReference | undefined> {
  if (backingLength > LIMITS.backingName) fail("unsupported", `the backing file name takes ${backingLength} bytes; at most ${LIMITS.backingName} are possible`, 16);
  if (backingOffset + backingLength > file.size) fail("corrupt", "the backing file name does not lie within the file", 8);
  const name = new Uint8Array(backingLength);
  yield read(file, backingOffset, name);
  // The format has no place for the backing file's own format.
  return backingLength === 0 ? undefined : { file: decodeText(name, file.name), format: undefined };
}

/** How many L2 tables a disk of `size` bytes can have. */
export function l1EntriesFor(size: number, clusterBits: number, l2Bits: number): number {
  return Math.ceil(size / 2 ** (clusterBits + l2Bits));
}

/** The end of the L1, in whole sectors. */
export function endOfL1({ l1Offset, l1Entries }: QcowHeader): number {
  return roundUp(l1Offset + l1Entries * ENTRY_SIZE, SECTOR);
}

/** Whether an L2 table can stand at `at` in a file of `size` bytes. */
export function fitsL2(at: number, header: QcowHeader, size: number): boolean {
  return at % SECTOR === 0 && at >= endOfL1(header) && at + header.l2Bytes <= size;
}

export function roundUp(value: number, to: number): number {
  return Math.ceil(value / to) * to;
}
