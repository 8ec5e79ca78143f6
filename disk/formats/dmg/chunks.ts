import { decodeBase64 } from "../../bytes/base64.ts";
import { bytes, Struct, u32, u64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import type { DmgTrailer, Part } from "./trailer.ts";

const SECTOR = 512, MISH = 0x6d697368;
/** QEMU's bounds: of the tables in the file, of a packed chunk, and of what it unpacks to. */
const LIMITS = { tables: 16 * 2 ** 20, packed: 64 * 2 ** 20, unpacked: 64 * 2 ** 20 } as const;

export const CHUNK = { zero: 0, raw: 1, ignored: 2, adc: 0x8000_0004, zlib: 0x8000_0005, bzip2: 0x8000_0006, lzfse: 0x8000_0007, lzma: 0x8000_0008 } as const;
const COMMENT = 0x7fff_fffe, END = 0xffff_ffff;

/** A table of chunks, of one partition mostly. */
const MishFields = new Struct({
  magic: u32, version: u32, firstSector: u64, sectors: bytes(8), dataOffset: u64, rest: bytes(172),
});
const ChunkFields = new Struct({ type: u32, comment: u32, sector: u64, sectors: u64, offset: u64, length: u64 });
const ResourceFields = new Struct({ dataOffset: u32, mapOffset: u32, dataLength: u32 });

/** A range of the disk, and where its bytes stand in the file. All in bytes. */
export interface Chunk { readonly type: number; readonly start: number; readonly size: number; readonly offset: number; readonly length: number }

/** Every chunk of the image, by its place on the disk. */
export function* readChunks(file: Storage, trailer: DmgTrailer): Task<readonly Chunk[]> {
  const { resources, propertyList, dataOffset } = trailer, chunks: Chunk[] = [];
  const tables = resources === undefined ? propertyListTables : resourceTables, part = resources ?? propertyList;
  if (part === undefined) throw corrupt(file, "there is no table of chunks", 0);
  if (part.length > LIMITS.tables) throw new DiskError("unsupported", `the tables of chunks take ${part.length} bytes; at most ${LIMITS.tables} are read`, { path: file.name, offset: part.offset, format: "dmg" });
  const all = new Uint8Array(part.length);
  yield read(file, part.offset, all);
  for (const table of tables(file, all, part)) {
    for (const chunk of chunksOf(file, table, dataOffset)) chunks.push(chunk);
  }
  chunks.sort((a, b) => a.start - b.start);
  for (const [i, { start }] of chunks.entries()) {
    const before = chunks[i - 1];
    if (before !== undefined && before.start + before.size > start) throw corrupt(file, `two chunks claim sector ${start / SECTOR}`, part.offset);
  }
  return chunks;
}

/** Of XML: whatever stands in `<data>` elements. A parser would tell their names, too, but every table says that it is one. */
function* propertyListTables(file: Storage, all: Uint8Array, part: Part): Iterable<Uint8Array> {
  const text = new TextDecoder().decode(all), open = "<data>", close = "</data>";
  for (let from = text.indexOf(open); from >= 0;) {
    const to = text.indexOf(close, from);
    if (to < 0) throw corrupt(file, "the property list is no XML: a <data> element does not end", part.offset);
    yield decodeBase64(text.slice(from + open.length, to));
    from = text.indexOf(open, to);
  }
}

/** Of the resource fork: every resource, each with its length before it. */
function* resourceTables(file: Storage, all: Uint8Array, part: Part): Iterable<Uint8Array> {
  const wrong = (at: number): DiskError => corrupt(file, "the resource fork contradicts itself", part.offset + at);
  if (all.length < ResourceFields.size) throw wrong(0);
  const { dataOffset, dataLength } = ResourceFields.parse(all), end = dataOffset + dataLength, view = new DataView(all.buffer);
  if (dataLength === 0 || end > all.length) throw wrong(0);
  for (let at = dataOffset; at < end;) {
    const length = at + 4 <= end ? view.getUint32(at) : 0;
    if (length === 0 || at + 4 + length > end) throw wrong(at);
    yield all.subarray(at + 4, at + 4 + length);
    at += 4 + length;
  }
}

/** The chunks of one table; other data has none. */
function* chunksOf(file: Storage, table: Uint8Array, dataOffset: number): Iterable<Chunk> {
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  if (table.length < MishFields.size + ChunkFields.size || view.getUint32(0) !== MISH) return;
  const { firstSector, dataOffset: tableOffset } = MishFields.parse(table);
  for (let at = MishFields.size; at + ChunkFields.size <= table.length; at += ChunkFields.size) {
    if (view.getUint32(at) === END || view.getUint32(at) === COMMENT) continue;
    const { type, sector, sectors, offset, length } = ChunkFields.parse(table, at);
    if (sectors === 0) continue;
    const start = (firstSector + sector) * SECTOR, size = sectors * SECTOR;
    if (!Number.isSafeInteger(start + size)) throw corrupt(file, `a chunk of ${sectors} sectors from ${sector} is impossible`, 0);
    if (isPacked(type) && (size > LIMITS.unpacked || length > LIMITS.packed)) {
      throw new DiskError("unsupported", `a chunk of ${length} bytes unpacks to ${size}; at most ${LIMITS.packed} and ${LIMITS.unpacked} are read`, { path: file.name, format: "dmg" });
    }
    yield { type, start, size, offset: dataOffset + tableOffset + offset, length };
  }
}

function isPacked(type: number): boolean {
  return type !== CHUNK.zero && type !== CHUNK.ignored && type !== CHUNK.raw;
}

function corrupt(file: Storage, what: string, offset: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "dmg" });
}
