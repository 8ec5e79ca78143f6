import { spawnSync } from "node:child_process";
import { deflateSync } from "node:zlib";
import { findTool } from "./tools.ts";

export const SECTOR = 512;
export const TYPE = { zero: 0, raw: 1, ignored: 2, adc: 0x8000_0004, zlib: 0x8000_0005, bzip2: 0x8000_0006, lzfse: 0x8000_0007, lzma: 0x8000_0008, comment: 0x7fff_fffe, end: 0xffff_ffff } as const;

/** A chunk of a dmg image: what it holds, or for zeros only how many sectors. `packed`: its bytes in the file, if not made of `data`. */
export interface DmgChunk { readonly type: keyof typeof TYPE; readonly sectors: number; readonly data?: Uint8Array; readonly packed?: Uint8Array }

export interface DmgOptions {
  /** One table each; chunks follow each other on the disk. */
  readonly partitions: readonly (readonly DmgChunk[])[];
  /** Where the tables stand. Default: a property list. */
  readonly tables?: "xml" | "resources";
  /** Bytes before the data fork. */
  readonly before?: number;
  /** Changes the table of a partition, and the trailer, before they are written. */
  readonly table?: (table: Buffer, partition: number) => Buffer;
  readonly trailer?: (trailer: Buffer) => void;
}

export function bzip2(plain: Uint8Array): Uint8Array {
  return new Uint8Array(spawnSync(findTool("bzip2") ?? "bzip2", ["-c"], { input: plain, maxBuffer: 256 << 20 }).stdout);
}

function packed({ type, data = new Uint8Array(0), packed }: DmgChunk): Uint8Array {
  if (packed !== undefined) return packed;
  if (type === "zlib") return deflateSync(data);
  return type === "bzip2" ? bzip2(data) : data;
}

/** A table: 204 bytes, and 40 for each chunk. */
function table(firstSector: number, sectors: number, dataOffset: number, chunks: readonly (readonly [type: number, sector: number, sectors: number, offset: number, length: number])[]): Buffer {
  const bytes = Buffer.alloc(204 + 40 * chunks.length);
  bytes.write("mish");
  bytes.writeUInt32BE(1, 4);
  for (const [at, value] of [[8, firstSector], [16, sectors], [24, dataOffset]] as const) bytes.writeBigUInt64BE(BigInt(value), at);
  bytes.writeUInt32BE(chunks.length, 200);
  for (const [i, [type, ...numbers]] of chunks.entries()) {
    bytes.writeUInt32BE(type, 204 + 40 * i);
    for (const [j, number] of numbers.entries()) bytes.writeBigUInt64BE(BigInt(number), 204 + 40 * i + 8 + 8 * j);
  }
  return bytes;
}

/** As hdiutil writes it: lines of 52 characters, indented. */
function propertyList(tables: readonly Buffer[]): Buffer {
  const data = (bytes: Buffer): string => `\t\t\t\t<data>\n${(bytes.toString("base64").match(/.{1,52}/g) ?? []).map((line) => `\t\t\t\t${line}\n`).join("")}\t\t\t\t</data>\n`;
  const entries = tables.map((bytes, i) => `\t\t\t<dict>\n\t\t\t\t<key>Attributes</key>\n\t\t\t\t<string>0x0050</string>\n\t\t\t\t<key>Data</key>\n${data(bytes)}\t\t\t\t<key>ID</key>\n\t\t\t\t<string>${i - 1}</string>\n\t\t\t</dict>\n`).join("");
  // Another resource beside the tables: its data is none.
  const other = `\t\t<key>plst</key>\n\t\t<array>\n\t\t\t<dict>\n\t\t\t\t<key>Data</key>\n${data(Buffer.alloc(1032))}\t\t\t</dict>\n\t\t</array>\n`;
  return Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n<plist version="1.0">\n<dict>\n\t<key>resource-fork</key>\n\t<dict>\n\t\t<key>blkx</key>\n\t\t<array>\n${entries}\t\t</array>\n${other}\t</dict>\n</dict>\n</plist>\n`);
}

/** Its header, then each resource with its length before it, then a map that nobody needs. */
function resourceFork(tables: readonly Buffer[]): Buffer {
  const data = Buffer.concat([...tables, Buffer.alloc(300, "x")].flatMap((bytes) => {
    const length = Buffer.alloc(4);
    length.writeUInt32BE(bytes.length);
    return [length, bytes];
  }));
  const header = Buffer.alloc(256);
  for (const [i, value] of [256, 256 + data.length, data.length, 50].entries()) header.writeUInt32BE(value, i * 4);
  return Buffer.concat([header, data, Buffer.alloc(50)]);
}

/** A dmg image, from what is known of the format. */
export function makeDmg({ partitions, tables: where = "xml", before = 0, table: change = (bytes) => bytes, trailer: changeTrailer }: DmgOptions): Buffer {
  const data: Uint8Array[] = [Buffer.alloc(before)], made: Buffer[] = [];
  let sector = 0, at = 0;
  for (const [number, chunks] of partitions.entries()) {
    const first = sector, dataOffset = at, rows: [number, number, number, number, number][] = [];
    for (const chunk of chunks) {
      const bytes = packed(chunk);
      rows.push([TYPE[chunk.type], sector - first, chunk.sectors, at - dataOffset, bytes.length]);
      data.push(bytes);
      at += bytes.length;
      sector += chunk.sectors;
    }
    rows.push([TYPE.comment, 0, 0, 0, 0], [TYPE.end, sector - first, 0, at - dataOffset, 0]);
    made.push(change(table(first, sector - first, dataOffset, rows), number));
  }
  const listing = where === "xml" ? propertyList(made) : resourceFork(made), trailer = Buffer.alloc(512), u64 = (value: number, place: number): void => { trailer.writeBigUInt64BE(BigInt(value), place); };
  trailer.write("koly");
  trailer.writeUInt32BE(4, 4);
  trailer.writeUInt32BE(512, 8);
  u64(before, 24);
  u64(at, 32);
  u64(before + at, where === "xml" ? 216 : 40);
  u64(listing.length, where === "xml" ? 224 : 48);
  u64(sector, 492);
  changeTrailer?.(trailer);
  return Buffer.concat([...data, listing, trailer]);
}

/** What the disk holds. */
export function dmgContents(partitions: readonly (readonly DmgChunk[])[]): Buffer {
  return Buffer.concat(partitions.flat().map(({ sectors, data = new Uint8Array(0) }) => Buffer.concat([data, Buffer.alloc(sectors * SECTOR - data.length)])));
}
