import { bytes, Struct, u64 } from "../../bytes/struct.ts";
import { hex } from "../../errors.ts";
import type { Extent } from "../../image.ts";
import { TableCache, type Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { corrupt, SECTOR, unsupported } from "./header.ts";

const MAGIC = { constant: 0xcafe_babe, volatile: 0xcafe_cafe } as const, VERSION = 0x2_0000_0001;
/** In sectors; no others are known. */
const GRAIN = 8, TABLE = 64;
const ENTRY_SIZE = 8, PER_TABLE = (TABLE * SECTOR) / ENTRY_SIZE, GRAIN_SIZE = GRAIN * SECTOR;
/** Of the grain directory, in bytes: 64 TiB, the largest disk there is. */
const MAX_DIRECTORY = 2 ** 25;
/** The highest four bits of an entry say what it is. */
const KIND = { none: 0, unmapped: 1, zero: 2, grain: 3 } as const;

/** There is no specification: names and meanings are as in QEMU's block/vmdk.c. Places and sizes are in sectors. */
export const ConstantFields = new Struct({
  magic: u64, version: u64, capacity: u64, grainSize: u64, tableSize: u64, flags: u64, reserved1: u64, reserved2: u64, reserved3: u64, reserved4: u64,
  volatileOffset: u64, volatileSize: u64, journalHeaderOffset: u64, journalHeaderSize: u64, journalOffset: u64, journalSize: u64,
  directoryOffset: u64, directorySize: u64, tablesOffset: u64, tablesSize: u64, bitmapOffset: u64, bitmapSize: u64, backmapOffset: u64, backmapSize: u64,
  grainsOffset: u64, grainsSize: u64, rest: bytes(304),
}, "little");
const VolatileFields = new Struct({ magic: u64, freeTable: u64, nextTransaction: u64, replayJournal: u64, rest: bytes(480) }, "little");

/** A checked header of a seSparse extent (ESXi from 6.5 on), in bytes. */
export interface SeSparseHeader {
  readonly capacity: number; readonly grainSize: number;
  readonly directory: number; readonly entries: number;
  readonly tables: number; readonly grains: number;
}

export function* readSeSparseHeader(file: Storage): Task<SeSparseHeader> {
  const sector = new Uint8Array(SECTOR);
  yield read(file, 0, sector);
  if (new DataView(sector.buffer).getUint32(0, true) !== MAGIC.constant) throw corrupt(file, "is no seSparse extent: the magic is missing", 0);
  const fields = ConstantFields.parse(sector), { capacity, directoryOffset, directorySize, tablesOffset, grainsOffset } = fields;
  const known = fields.version === VERSION && fields.grainSize === GRAIN && fields.tableSize === TABLE && fields.flags === 0 && fields.reserved1 + fields.reserved2 + fields.reserved3 + fields.reserved4 === 0;
  if (!known) throw unsupported(file, `a seSparse extent of version ${hex(fields.version)}, grains of ${fields.grainSize} sectors, flags ${hex(fields.flags)}, which is not known`);
  const tail = new Uint8Array(SECTOR);
  if (fields.volatileOffset * SECTOR > file.size) throw corrupt(file, "the file is truncated: it ends before its second header");
  yield read(file, fields.volatileOffset * SECTOR, tail);
  const state = VolatileFields.parse(tail);
  if (state.magic !== MAGIC.volatile) throw corrupt(file, "the second header of the seSparse extent is damaged", fields.volatileOffset * SECTOR);
  if (state.replayJournal !== 0) throw unsupported(file, "the seSparse extent was not closed in order, and its journal is not known: let ESXi open it once");
  const entries = Math.ceil(capacity / (GRAIN * PER_TABLE)), directory = directoryOffset * SECTOR;
  if (!Number.isSafeInteger(capacity * SECTOR) || entries * ENTRY_SIZE > MAX_DIRECTORY) throw unsupported(file, "a seSparse extent of more than 64 TiB");
  if (entries * ENTRY_SIZE > directorySize * SECTOR || directory + entries * ENTRY_SIZE > file.size) throw corrupt(file, "the file is truncated: it ends before its grain directory does");
  return { capacity: capacity * SECTOR, grainSize: GRAIN_SIZE, directory, entries, tables: tablesOffset * SECTOR, grains: grainsOffset * SECTOR };
}

/** The tables of a seSparse extent, for reading. */
export class SeSparseGrains {
  readonly #tables: TableCache;

  private constructor(readonly file: Storage, readonly header: SeSparseHeader, readonly directory: DataView, tableCache: number) {
    this.#tables = new TableCache(file, TABLE * SECTOR, tableCache);
  }

  static *open(file: Storage, header: SeSparseHeader, tableCache: number): Task<SeSparseGrains> {
    const directory = new Uint8Array(header.entries * ENTRY_SIZE);
    yield read(file, header.directory, directory);
    return new SeSparseGrains(file, header, new DataView(directory.buffer), tableCache);
  }

  map(offset: number, length: number): Extent | undefined {
    const skip = offset % GRAIN_SIZE, grain = (offset - skip) / GRAIN_SIZE, index = grain % PER_TABLE, number = (grain - index) / PER_TABLE;
    length = Math.min(length, (PER_TABLE - index) * GRAIN_SIZE - skip);
    const table = this.#tables.get(number);
    if (table === undefined) return this.tableAt(number) === undefined ? { kind: "backing", length } : undefined;
    const first = this.#entry(table, index);
    if (first === "bad") throw corrupt(this.file, "a grain stands where none can be", table.at + index * ENTRY_SIZE);
    let done = GRAIN_SIZE - skip;
    for (let next = index + 1; done < length; next++, done += GRAIN_SIZE) {
      const here = this.#entry(table, next), expected = typeof first === "number" ? first + (next - index) * GRAIN_SIZE : first;
      if (here !== expected) break;
    }
    length = Math.min(length, done);
    return typeof first === "number" ? { kind: "data", length, storage: this.file, offset: first + skip, writable: false } : { kind: first, length };
  }

  *load(offset: number): Task {
    const number = Math.floor(offset / (PER_TABLE * GRAIN_SIZE)), at = this.tableAt(number);
    if (at !== undefined) yield* this.#tables.load(number, at);
  }

  /** Where a grain table stands; `undefined`: there is none. */
  tableAt(number: number): number | undefined {
    const low = this.directory.getUint32(number * ENTRY_SIZE, true), high = this.directory.getUint32(number * ENTRY_SIZE + 4, true), at = this.header.tables + low * TABLE * SECTOR;
    if (low === 0 && high === 0) return undefined;
    if (high !== 0x1000_0000 || at + TABLE * SECTOR > this.file.size) throw corrupt(this.file, `entry ${number} of the grain directory points where no table can be`, this.header.directory + number * ENTRY_SIZE);
    return at;
  }

  /** Where the grain stands, or what it is instead. */
  #entry(table: Table, index: number): number | "backing" | "zero" | "bad" {
    const low = table.view.getUint32(index * ENTRY_SIZE, true), high = table.view.getUint32(index * ENTRY_SIZE + 4, true), kind = high >>> 28;
    if (kind === KIND.unmapped || kind === KIND.zero) return "zero";
    if (low === 0 && high === 0) return "backing";
    // The lowest twelve bits of a grain's number stand above the others.
    const number = ((high & 0xffff) * 2 ** 32 + low) * 4096 + ((high >>> 16) & 0xfff), at = this.header.grains + number * GRAIN_SIZE;
    return kind !== KIND.grain || at >= this.file.size ? "bad" : at;
  }
}
