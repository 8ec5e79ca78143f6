import { deflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { formatNamed } from "../../disk/formats/registry.ts";
import { open } from "../../disk/open.ts";
import { all } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { bochsContents, makeBochs } from "../support/bochs.ts";
import { expectBytes } from "../support/bytes.ts";
import { makeCloop } from "../support/cloop.ts";
import { bzip2, dmgContents, makeDmg, type DmgChunk, type DmgOptions } from "../support/dmg.ts";
import { anyRange } from "../support/model.ts";
import { inMode, MODES } from "../support/modes.ts";
import { seeded, withSeed } from "../support/random.ts";
import { requireTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const text = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i >> 4) * 7);

function openNow(bytes: Uint8Array, format?: string, name = "hostile"): Disk {
  const disk = open(new MemoryStorage(new Uint8Array(bytes), name), { readOnly: true, ...(format === undefined ? {} : { format }) });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

function readAll(bytes: Uint8Array, format: string): Uint8Array {
  const disk = openNow(bytes, format), contents = new Uint8Array(Math.min(disk.size, 4 * MIB));
  void disk.read(0, contents);
  return contents;
}

/** A copy with some bytes changed. */
function patched(bytes: Uint8Array, change: (view: DataView, copy: Uint8Array) => void): Uint8Array {
  const copy = bytes.slice();
  change(new DataView(copy.buffer), copy);
  return copy;
}

const CLOOP = new Uint8Array(makeCloop(4096, [text(4096), text(4096).fill(1), text(4096)]));
const BOCHS = new Uint8Array(makeBochs({ version: 2, size: 100 * KIB, extentSize: 8 * KIB, extents: [{ index: 1, sectors: new Map([[0, text(512)], [15, text(512)]]) }] }));
const CHUNKS: readonly DmgChunk[] = [{ type: "raw", sectors: 2, data: text(1024) }, { type: "zlib", sectors: 8, data: text(4096) }, { type: "zero", sectors: 10 }];
const dmg = (options: Partial<DmgOptions> = {}): Uint8Array => new Uint8Array(makeDmg({ partitions: [CHUNKS], ...options }));

test.each([["cloop", CLOOP], ["bochs", BOCHS], ["dmg", dmg()]] as const)("%s is never opened for writing, and never changed", (format, bytes) => {
  expect(() => open(new MemoryStorage(bytes.slice()), { format })).toThrow(/only reads/);
  const disk = openNow(bytes, format);
  for (const change of [() => disk.write(0, new Uint8Array(1)), () => disk.zero(0, 512), () => disk.discard(0, 512), () => disk.truncate(512)]) expect(change).toThrow(expect.objectContaining({ kind: "read-only" }));
  expect([disk.flush(), disk.close()]).toEqual([undefined, undefined]);
  expect(formatNamed(format).creation).toBeUndefined();
});

describe.each(MODES)("%s storage: read here and there, in little cache, what is there", (mode) => {
  seeded("cloop, bochs and dmg", async (random) => {
    const sectors = (count: number): Map<number, Uint8Array> => new Map(Array.from({ length: count }, () => [random.int(64), random.bytes(512)]));
    const bochs = { version: 2, size: 9 * MIB, extentSize: 32 * KIB, extents: Array.from({ length: 40 }, (_, i) => ({ index: i * 7, sectors: sectors(i) })) } as const;
    const blocks = Array.from({ length: 2000 }, () => random.text(512)), partitions = [CHUNKS, CHUNKS];
    for (const [format, bytes, contents] of [["cloop", makeCloop(512, blocks), Buffer.concat(blocks)], ["bochs", makeBochs(bochs), bochsContents(bochs)], ["dmg", makeDmg({ partitions }), dmgContents(partitions)]] as const) {
      const disk = await open(inMode(mode, new MemoryStorage(new Uint8Array(bytes)), random), { format, readOnly: true, tableCache: 1 });
      expect(disk.size).toBe(contents.length);
      await all(Array.from({ length: 200 }, async () => {
        const { offset, length } = anyRange(random, disk.size, 100_000), into = new Uint8Array(length);
        await disk.read(offset, into);
        expectBytes(into, contents.subarray(offset, offset + length), `${format} at ${offset}`);
      }));
      await disk.close();
    }
  });
});

describe("dmg is told by its trailer, and only under its name", () => {
  test.each([["x.dmg", "dmg"], ["X.DMG", "dmg"], ["https://example.org/x.dmg?key=1", "dmg"], ["x.img", "raw"], ["dmg", "raw"]])("%s: %s", (name, format) => {
    expect(openNow(dmg(), undefined, name).chain[0].format).toBe(format);
  });

  test("no trailer: a raw disk", () => {
    expect(openNow(dmg().subarray(0, -600), undefined, "x.dmg").chain[0].format).toBe("raw");
    expect(openNow(new Uint8Array(10), undefined, "x.dmg").chain[0].format).toBe("raw");
  });

  test("a file padded to whole sectors", () => {
    const bytes = dmg({ before: 77 }), padded = new Uint8Array(Math.ceil(bytes.length / 512) * 512);
    padded.set(bytes);
    expect(readAll(padded, "dmg")).toEqual(readAll(bytes, "dmg"));
    expect(openNow(padded, undefined, "x.dmg").chain[0].format).toBe("dmg");
  });

  test("another format's magic comes first", () => {
    const bytes = Buffer.concat([CLOOP, dmg()]);
    expect(openNow(bytes, undefined, "x.dmg").chain[0].format).toBe("cloop");
  });
});

describe("what cannot be right is refused", () => {
  const trailer = (at: number, value: number | bigint) => (bytes: Buffer): void => { bytes.writeBigUInt64BE(BigInt(value), at); };
  const chunk = (index: number, at: number, value: number | bigint) => (table: Buffer): Buffer => {
    table.writeBigUInt64BE(BigInt(value), 204 + 40 * index + at);
    return table;
  };
  const type = (index: number, value: number) => (table: Buffer): Buffer => {
    table.writeUInt32BE(value, 204 + 40 * index);
    return table;
  };

  test.each([
    ["the property list behind the end", dmg({ trailer: trailer(216, 2 ** 40) }), /property list should stand/], ["a property list of 2^60 bytes", dmg({ trailer: trailer(224, 2n ** 60n) }), /larger than any/], ["no tables", dmg({ trailer: trailer(224, 0) }), /no table of chunks/],
    ["the resource fork behind the end", dmg({ tables: "resources", trailer: trailer(48, 2 ** 30) }), /resource fork should stand/], ["a resource fork that is none", dmg({ trailer: (bytes) => { bytes.copy(bytes, 40, 216, 232); } }), /resource fork contradicts itself/],
    ["a data fork behind its end", dmg({ trailer: trailer(24, 2 ** 40) }), /data fork should begin/], ["2^53 sectors", dmg({ trailer: trailer(492, 2n ** 52n) }), /sectors is impossible/], ["segments", dmg({ trailer: (bytes) => { bytes.writeUInt32BE(3, 60); } }), /one of 3 segments/],
    ["XML that does not end", patched(dmg(), (_, bytes) => { bytes.fill(0x20, Buffer.from(bytes).lastIndexOf("</data>"), bytes.length - 512); }), /does not end/], ["no trailer", dmg().subarray(0, -512), /trailer \('koly'\) is missing/], ["encrypted", Buffer.concat([Buffer.from("encrcdsa"), dmg()]), /encrypted/],
    ["two chunks for one sector", dmg({ table: chunk(2, 8, 9) }), /two chunks claim sector 9/], ["a chunk at 2^53", dmg({ table: chunk(2, 8, 2 ** 45) }), /is impossible/], ["a chunk to be unpacked to 65 MiB", dmg({ table: chunk(1, 16, 133_120) }), /unpacks to 68157440/], ["a packed chunk of 65 MiB", dmg({ table: chunk(1, 32, 65 * MIB) }), /a chunk of 68157440 bytes/],
    ["a chunk behind the end", dmg({ table: chunk(1, 24, 2 ** 40) }), /truncated/], ["raw data behind the end", dmg({ table: chunk(0, 24, 2 ** 40) }), /truncated/], ["raw data that is missing", dmg({ table: chunk(0, 32, 512) }), /has only 512/], ["a gap", dmg({ table: chunk(0, 16, 1) }), /no chunk holds sector 1/],
    ["no chunk at all", dmg({ table: () => Buffer.alloc(1000) }), /no chunk holds sector 0/], ["a damaged chunk", patched(dmg(), (_, bytes) => { bytes[1030] = (bytes[1030] ?? 0) ^ 0x55; }), /compressed data/], ["a chunk that unpacks to less", dmg({ table: chunk(1, 16, 9) }), /two chunks|ends \d+ bytes early/],
    ["ADC", dmg({ table: type(1, 0x8000_0004) }), /compressed with ADC/], ["LZFSE", dmg({ table: type(1, 0x8000_0007) }), /compressed with LZFSE/], ["LZMA", dmg({ table: type(1, 0x8000_0008) }), /compressed with LZMA/], ["a type of the future", dmg({ table: type(1, 0x8000_0042) }), /unknown method \(0x80000042\)/], ["bzip2 that is none", dmg({ table: type(1, 0x8000_0006) }), /is not bzip2/],
  ])("dmg: %s", (_, bytes, message) => {
    expect(() => readAll(bytes, "dmg")).toThrow(message);
    expect(() => readAll(bytes, "dmg")).toThrow(DiskError);
  });

  test.each([
    ["blocks of 0 bytes", patched(CLOOP, (view) => { view.setUint32(128, 0); }), /blocks of 0 bytes/], ["blocks of 1000 bytes", patched(CLOOP, (view) => { view.setUint32(128, 1000); }), /blocks of 1000 bytes/], ["blocks of 65 MiB", patched(CLOOP, (view) => { view.setUint32(128, 65 * MIB); }), /at most/],
    ["2^32 - 1 blocks", patched(CLOOP, (view) => { view.setUint32(132, 2 ** 32 - 1); }), /would take more/], ["more blocks than offsets", patched(CLOOP, (view) => { view.setUint32(132, 50_000_00); }), /truncated/], ["an offset over 2^53", patched(CLOOP, (view) => { view.setUint32(136, 2 ** 31); }), /larger than any/],
    ["offsets that fall", patched(CLOOP, (view) => { view.setUint32(140, 2 ** 20); }), /which is impossible/], ["a block of nothing", patched(CLOOP, (view) => { view.setUint32(148, view.getUint32(140)); }), /which is impossible/], ["a block behind the end", CLOOP.subarray(0, -1), /truncated/], ["a damaged block", patched(CLOOP, (_, bytes) => { bytes[180] = (bytes[180] ?? 0) ^ 0x55; }), /compressed data/],
    ["a wrong checksum", patched(CLOOP, (_, bytes) => { bytes[bytes.length - 1] = (bytes[bytes.length - 1] ?? 0) ^ 1; }), /checksum/], ["a file that is only a script", CLOOP.subarray(0, 130), /ends within its header/],
  ])("cloop: %s", (_, bytes, message) => {
    expect(() => readAll(bytes, "cloop")).toThrow(message);
    expect(() => readAll(bytes, "cloop")).toThrow(DiskError);
  });

  test.each([
    ["no magic", patched(BOCHS, (view) => { view.setUint8(3, 0); }), /magic is missing/], ["an undoable redolog", new Uint8Array(makeBochs({ version: 2, size: 512, extentSize: 512, extents: [], subtype: "Undoable" })), /Redolog Undoable; only growing ones/], ["version 3", patched(BOCHS, (view) => { view.setUint32(64, 3 << 16, true); }), /version 196608/],
    ["a catalog of millions", patched(BOCHS, (view) => { view.setUint32(72, 2 ** 21, true); }), /catalog of 2097152/], ["a catalog too small", patched(BOCHS, (view) => { view.setUint32(72, 3, true); }), /too small for a disk/], ["no bitmap", patched(BOCHS, (view) => { view.setUint32(76, 0, true); }), /bitmaps of 0 bytes/], ["extents of 0 bytes", patched(BOCHS, (view) => { view.setUint32(80, 0, true); }), /extents of 0 bytes/],
    ["extents of 1000 bytes", patched(BOCHS, (view) => { view.setUint32(80, 1000, true); }), /extents of 1000 bytes/], ["extents of 16 MiB", patched(BOCHS, (view) => { view.setUint32(80, 16 * MIB, true); }), /at most/], ["a size over 2^53", patched(BOCHS, (view) => { view.setUint32(92, 2 ** 31, true); }), /larger than any/], ["no header", patched(BOCHS, (view) => { view.setUint32(68, 0, true); }), /header of 0 bytes/],
    ["a header of 4 GiB", patched(BOCHS, (view) => { view.setUint32(68, 2 ** 32 - 4, true); }), /truncated/], ["an extent behind the end", patched(BOCHS, (view) => { view.setUint32(512, 7, true); }), /points at extent 7/], ["a sector behind the end", BOCHS.subarray(0, -1), /truncated/],
  ])("bochs: %s", (_, bytes, message) => {
    expect(() => readAll(bytes, "bochs")).toThrow(message);
    expect(() => readAll(bytes, "bochs")).toThrow(DiskError);
  });
});

test("the same bytes told of as chunks of two sizes are not mixed up", () => {
  const both = deflateSync(text(1024)), bytes = dmg({
    partitions: [[{ type: "zlib", sectors: 2, packed: both }, { type: "zlib", sectors: 1, packed: new Uint8Array(1) }, { type: "zero", sectors: 1 }]],
    table: (table) => { table.copy(table, 204 + 40 + 24, 204 + 24, 204 + 40); return table; },
  }), disk = openNow(bytes, "dmg"), into = new Uint8Array(100);
  void disk.read(600, into);
  expect(into).toEqual(text(1024).subarray(600, 700));
  expect(() => disk.read(1024, into)).toThrow(/compressed data/);
});

test.skipIf(!requireTool("bzip2"))("a bomb of bzip2 does not unpack to more than its chunk", () => {
  const packed = bzip2(new Uint8Array(64 * MIB)), before = process.memoryUsage.rss();
  expect(packed.length).toBeLessThan(1000);
  expect(() => readAll(dmg({ partitions: [[{ type: "bzip2", sectors: 2, packed }]] }), "dmg")).toThrow(/longer than it should/);
  expect(process.memoryUsage.rss() - before).toBeLessThan(30 * MIB);
});

test("tables as large as they may be are read in little memory", () => {
  const rows = 300_000, table = Buffer.alloc(204 + 40 * rows);
  table.write("mish");
  for (let i = 0; i < rows; i++) {
    table.writeUInt32BE(2, 204 + 40 * i);
    table.writeBigUInt64BE(BigInt(rows - i), 204 + 40 * i + 8);
    table.writeBigUInt64BE(1n, 204 + 40 * i + 16);
  }
  const bytes = dmg({ tables: "resources", table: () => table, trailer: (trailer) => { trailer.writeBigUInt64BE(1000n, 492); } }), before = process.memoryUsage.rss();
  expect(() => readAll(bytes, "dmg")).toThrow(/no chunk holds sector 0/);
  expect(process.memoryUsage.rss() - before).toBeLessThan(150 * MIB);
  expect(() => readAll(dmg({ tables: "resources", table: () => Buffer.alloc(17 * MIB) }), "dmg")).toThrow(/at most 16777216 are read/);
});

test("random damage ends in a DiskError or in an answer", () => withSeed((random) => {
  let read = 0;
  for (const [format, bytes] of [["cloop", CLOOP], ["bochs", BOCHS], ["dmg", dmg()], ["dmg", dmg({ tables: "resources" })]] as const) {
    const heads = format === "dmg" ? [...Array.from({ length: 512 }, (_, i) => bytes.length - 512 + i), ...Array.from({ length: 1500 }, (_, i) => bytes.length - 2012 + i)] : Array.from({ length: 600 }, (_, i) => i);
    for (let round = 0; round < 300; round++) {
      const hurt = patched(bytes, (_, copy) => { for (let i = 0; i < 1 + random.int(4); i++) copy[random.pick(heads)] = random.pick([0, 1, 255, random.int(256)]); });
      try {
        void run(formatNamed(format).info(new MemoryStorage(hurt)));
        readAll(random.chance(0.2) ? hurt.subarray(0, random.int(hurt.length)) : hurt, format);
        read++;
      } catch (error) {
        if (!(error instanceof DiskError)) throw error;
      }
    }
  }
  expect(read).toBeGreaterThan(20);
}));
