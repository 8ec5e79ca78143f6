import { deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { createQcow, qcowCreation } from "../../disk/formats/qcow1/create.ts";
import { qcow } from "../../disk/formats/qcow1/index.ts";
import { probe } from "../../disk/formats/registry.ts";
import { open, type OpenOptions } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { withSeed } from "../support/random.ts";

const C = 512, L1 = 56, L2 = 2048, DATA = L2 + C, SPAN = 64 * C;

/** Header, name and L1 (130 entries, to byte 1096, in whole sectors 1536), an L2 table, two clusters. */
function image(damage: (view: DataView) => void = () => undefined): MemoryStorage {
  const file = new MemoryStorage(undefined, "hostile.qcow");
  void run(createQcow(file, { size: 130 * SPAN, clusterBits: 9, l2Bits: 6, backingFile: "base" }));
  const disk = openNow(file);
  void disk.write(0, new Uint8Array(2 * C).fill(1));
  void disk.close();
  damage(new DataView(file.bytes.buffer, file.bytes.byteOffset, file.size));
  return file;
}

function openNow(file: Storage, options: OpenOptions = {}): Disk {
  const disk = open(file, { format: "qcow", gate: { open: () => new MemoryStorage(new Uint8Array(2 ** 16).fill(5), "base") }, ...options });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

const u8 = (at: number, value: number) => (view: DataView): void => { view.setUint8(at, value); };
const u32 = (at: number, value: number) => (view: DataView): void => { view.setUint32(at, value); };
const u64 = (at: number, value: number | bigint) => (view: DataView): void => { view.setBigUint64(at, BigInt(value)); };

test("the layout that the tests below rely on", () => {
  const view = new DataView(image().bytes.buffer);
  expect([Number(view.getBigUint64(40)), Number(view.getBigUint64(L1)), Number(view.getBigUint64(L2)), Number(view.getBigUint64(L2 + 8))]).toEqual([L1, L2, DATA, DATA + C]);
});

test("it is probed by its version: 2 and later are qcow2's", () => {
  expect([1, 2, 3].map((version) => probe(image(u32(4, version)).bytes.subarray(0, 512)).name)).toEqual(["qcow", "qcow2", "qcow2"]);
});

describe("a header that cannot be right is refused", () => {
  test.each([
    ["no magic", u32(0, 1), /magic is missing/], ["version 2", u32(4, 2), /open it as qcow2/], ["size 0", u64(24, 0), /a disk of 0 bytes/], ["size 1", u64(24, 1), /a disk of 1 bytes/], ["size 2^63", u64(24, 2n ** 63n), /larger than any/],
    ["size 2^52", u64(24, 2n ** 52n), /QEMU's bound/], ["a size that the L1 does not reach", u64(24, 2 ** 30), /truncated/], ["cluster bits 8", u8(32, 8), /cluster size 2\^8/], ["cluster bits 17", u8(32, 17), /cluster size 2\^17/], ["cluster bits 255", u8(32, 255), /cluster size/],
    ["l2 bits 5", u8(33, 5), /L2 tables of 2\^5/], ["l2 bits 14", u8(33, 14), /L2 tables of 2\^14/], ["encryption 2", u32(36, 2), /unknown encryption method 2/], ["L1 in the header", u64(40, 8), /impossible place/], ["L1 unaligned", u64(40, 60), /impossible place/],
    ["L1 behind the end", u64(40, 2 ** 40), /truncated/], ["a long name", u32(16, 1024), /takes 1024 bytes/], ["a name elsewhere", u64(8, 10 ** 6), /does not lie within/], ["AES", u32(36, 1), /encrypted \(AES\)/],
  ] as const)("%s", (_, damage, message) => {
    expect(() => openNow(image(damage))).toThrow(message);
  });

  test("what is encrypted is still told of", () => {
    expect(run(qcow.info(image(u32(36, 1))))).toMatchObject({ encrypted: true, size: 130 * SPAN });
  });

  test("an L1 of almost 2 GiB takes no memory", () => {
    const file = image(u64(24, 268_435_455 * SPAN));
    Object.defineProperty(file, "size", { value: 2 ** 31 + 4096 });
    const before = process.memoryUsage.rss(), disk = openNow(file, { readOnly: true });
    void disk.read(268_435_455 * SPAN - C, new Uint8Array(C));
    expect(process.memoryUsage.rss() - before).toBeLessThan(50 * 2 ** 20);
  });
});

describe("an entry that cannot be right never becomes data", () => {
  test.each([
    ["L1 entry unaligned", u64(L1, L2 + 8), /where no L2 table/], ["L1 entry behind the end", u64(L1, 100 * C), /where no L2 table/], ["L1 entry at the L1", u64(L1, C), /where no L2 table/], ["L1 entry at the header", u64(L1 + 8, 8), /where no L2 table/], ["L1 entry of 64 bits", u64(L1, 2n ** 64n - 512n), /where no L2 table/],
    ["L2 entry behind the end", u64(L2, 100 * C), /truncated/], ["L2 entry at the L1", u64(L2 + 8, C), /where no cluster/], ["L2 entry at the header", u64(L2 + 8, 8), /where no cluster/], ["L2 entry unaligned", u64(L2 + 8, DATA + 256), /where no cluster/],
    ["an L2 entry at a table", u64(L2 + 8, L2), /which is an L2 table/], ["two L1 entries for one table", u64(L1 + 8, L2), /in one place/], ["no compressed bytes", u64(L2, 2n ** 63n + BigInt(DATA)), /0 compressed bytes/],
    ["compressed bytes behind the end", u64(L2, 2n ** 63n + (100n << 54n) + BigInt(DATA + 2 * C - 10)), /truncated/], ["compressed bytes that are none", u64(L2, 2n ** 63n + (100n << 54n) + BigInt(DATA)), /compressed data/],
  ] as const)("%s", (_, damage, message) => {
    const file = image(damage), before = file.bytes.slice();
    expect(() => {
      const disk = openNow(file);
      void disk.read(0, new Uint8Array(2 * C));
      void disk.write(0, new Uint8Array(2 * C));
    }).toThrow(message);
    expect(Buffer.compare(file.bytes, before)).toBe(0);
  });

  test("for reading, tables are not looked for among the data", () => {
    const disk = openNow(image(u64(L2 + 8, L2)), { readOnly: true }), bytes = new Uint8Array(8);
    void disk.read(C, bytes);
    expect(Number(new DataView(bytes.buffer).getBigUint64(0))).toBe(DATA);
  });

  test("after a contradiction nothing more is changed", () => {
    const disk = openNow(image(u64(L2 + 8, L2)));
    expect(() => disk.discard(0, C)).toThrow(/which is an L2 table/);
    expect(() => disk.write(SPAN, new Uint8Array(C))).toThrow(/which is an L2 table/);
    void disk.close();
  });
});

test("the last cluster must be whole, and so must the last L2 table", () => {
  const file = image();
  void file.truncate(DATA + 2 * C - 1);
  expect(() => openNow(file, { readOnly: true }).read(C, new Uint8Array(1))).toThrow(/truncated/);
  void file.truncate(DATA - 1);
  expect(() => openNow(file, { readOnly: true }).read(0, new Uint8Array(1))).toThrow(/no L2 table can be/);
});

test("what was cut off with the file's end does not come back as what is written there now", () => {
  const file = image();
  void file.truncate(DATA + C);
  const disk = openNow(file);
  void disk.write(SPAN, new Uint8Array(3 * C).fill(9));
  expect(() => disk.read(C, new Uint8Array(C))).toThrow(/truncated: .* the file had 3072 bytes/);
  expect(() => disk.write(C + 5, new Uint8Array(C))).toThrow(/truncated/);
  void disk.close();
});

test("compressed data stands at any byte, and goes as a whole when a part of it is written", () => {
  const packed = deflateRawSync(new Uint8Array(C).fill(7)), at = DATA + 2 * C + 3;
  const file = image(u64(L2, 2n ** 63n + (BigInt(packed.length) << 54n) + BigInt(at)));
  void file.write(at, packed);
  const disk = openNow(file), bytes = new Uint8Array(C);
  void disk.read(0, bytes);
  expect(bytes.every((byte) => byte === 7)).toBe(true);
  void disk.write(10, Uint8Array.of(8));
  void disk.close();
  void openNow(file, { readOnly: true }).read(0, bytes);
  expect([bytes[9], bytes[10], bytes[11]]).toEqual([7, 8, 7]);
  expect(Number(new DataView(file.bytes.buffer).getBigUint64(L2)) % C).toBe(0);
});

test("a write that fails leaves nothing behind: its cluster is used next", () => {
  const file = image(), disk = openNow(file), { size } = file;
  const failing = file.write.bind(file);
  file.write = (offset, from) => { if (offset >= size) throw new Error("no"); return failing(offset, from); };
  expect(() => disk.write(2 * C, new Uint8Array(C).fill(2))).toThrow("no");
  file.write = failing;
  void disk.write(3 * C, new Uint8Array(C).fill(3));
  void disk.close();
  expect(file.size).toBe(size + C);
});

test("options that no image can have are refused by name", () => {
  for (const [values, message] of [
    [{ size: 0 }, /of no bytes/], [{ size: 2 ** 52 }, /at most/], [{ size: 512, backing_file: "x".repeat(1024) }, /too long/],
    [{ size: 512, encryption: true }, /\(encryption\)/], [{ size: 512, "encrypt.format": "aes" }, /\(encrypt.format\)/], [{ size: 512, "encrypt.key-secret": "x" }, /\(encrypt.key-secret\)/],
  ] as const) expect(() => qcowCreation.plan(values)).toThrow(message);
  expect(qcowCreation.plan({ size: 512, encryption: false })).toBeTypeOf("function");
  expect(() => run(createQcow(new MemoryStorage(), { size: 512, clusterBits: 8 }))).toThrow(/not possible/);
});

test("random damage to header and tables ends in a DiskError or in an answer", () => withSeed((random) => {
  let opened = 0;
  for (let round = 0; round < 400; round++) {
    const file = image((view) => {
      for (let i = 0; i < 1 + random.int(4); i++) view.setUint8(random.pick([random.int(64), L1 + random.int(32), L2 + random.int(32)]), random.int(256));
    });
    if (random.chance(0.2)) void file.truncate(random.int(file.size));
    try {
      const disk = openNow(file);
      void disk.read(0, new Uint8Array(4 * C));
      void disk.write(C, new Uint8Array(3 * C).fill(7));
      void disk.close();
      opened++;
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
    }
  }
  expect(opened).toBeGreaterThan(0);
}));
