import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { checkQed } from "../../disk/formats/qed/check.ts";
import { createQed, qedCreation } from "../../disk/formats/qed/create.ts";
import type { CheckResult } from "../../disk/formats/check.ts";
import { open, type OpenOptions } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { withSeed } from "../support/random.ts";

const C = 4096, L1 = C, L2 = 2 * C, DATA = 3 * C;

/** Clusters: header, L1, L2, one of data. */
function image(damage: (view: DataView) => void = () => undefined): MemoryStorage {
  const file = new MemoryStorage(undefined, "hostile.qed");
  void run(createQed(file, { size: 2 ** 22, clusterSize: C, tableSize: 1, backingFile: "base" }));
  const disk = openNow(file);
  void disk.write(0, new Uint8Array(512).fill(1));
  void disk.close();
  damage(new DataView(file.bytes.buffer, file.bytes.byteOffset, file.size));
  return file;
}

function openNow(file: MemoryStorage, options: OpenOptions = {}): Disk {
  const disk = open(file, { format: "qed", gate: { open: () => new MemoryStorage(new Uint8Array(2 ** 20).fill(5), "base") }, ...options });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

const u32 = (at: number, value: number) => (view: DataView): void => { view.setUint32(at, value, true); };
const u64 = (at: number, value: number) => (view: DataView): void => { view.setBigUint64(at, BigInt(value), true); };

function check(file: MemoryStorage, repair?: "leaks" | "all"): CheckResult {
  const result = run(checkQed(file, { repair }));
  if (result instanceof Promise) throw new Error("expected a synchronous check");
  return result;
}

describe("a header that cannot be right is refused", () => {
  test.each([
    ["no magic", u32(0, 1), /magic is missing/], ["cluster size", u32(4, 6000), /clusters of 6000/], ["small clusters", u32(4, 2048), /clusters of 2048/], ["huge clusters", u32(4, 2 ** 27), /clusters of/],
    ["table size", u32(8, 3), /tables of 3/], ["no table", u32(8, 0), /tables of 0/], ["large tables", u32(8, 32), /tables of 32/], ["no header", u32(12, 0), /takes no cluster/], ["a header over all", u32(12, 2 ** 31), /impossible place/],
    ["unknown features", u32(16, 8), /features that no qed reader knows: 0x8/], ["L1 in the header", u64(40, 0), /impossible place/], ["L1 unaligned", u64(40, C + 8), /impossible place/], ["L1 behind the end", u64(40, 400 * C), /truncated/],
    ["size", u64(48, 511), /511 bytes is impossible/], ["too large a size", u64(48, 2 ** 40), /is impossible/], ["a long name", u32(60, 5000), /takes 5000 bytes/], ["a name elsewhere", u32(56, C), /does not lie within/],
  ] as const)("%s", (_, damage, message) => {
    expect(() => openNow(image(damage))).toThrow(message);
  });
});

describe("an entry that cannot be right never becomes data", () => {
  test.each([
    ["L1 entry unaligned", u64(L1, L2 + 8), /where no table can be/], ["L1 entry behind the end", u64(L1, 100 * C), /where no table can be/], ["L1 entry at the L1", u64(L1, L1), /where no table can be/], ["L1 entry at the header", u64(L1 + 8, C - C + 1), /where no table can be/],
    ["L2 entry behind the end", u64(L2, 100 * C), /where no cluster can be/], ["L2 entry at the L1", u64(L2 + 8, L1), /where no cluster can be/], ["L2 entry unaligned", u64(L2 + 8, DATA + 512), /where no cluster can be/], ["2", u64(L2 + 8, 2), /where no cluster can be/],
    ["an L2 entry at a table", u64(L2 + 8, L2), /which is a table/], ["two L1 entries for one table", u64(L1 + 8, L2), /is another's/],
  ] as const)("%s", (_, damage, message) => {
    const file = image(damage), before = file.bytes.slice();
    expect(() => openNow(file).write(0, new Uint8Array(C * 2))).toThrow(message);
    expect(Buffer.compare(file.bytes.subarray(0, DATA), before.subarray(0, DATA))).toBe(0);
  });

  test("after a contradiction nothing more is changed", () => {
    const disk = openNow(image(u64(L2 + 8, L2)));
    expect(() => disk.zero(0, 2 * C)).toThrow(/which is a table/);
    expect(() => disk.zero(2 ** 21, C)).toThrow(/which is a table/);
    void disk.close();
  });
});

describe("check", () => {
  test("clears entries that point nowhere, cuts leaks off the end, and tells of double references", () => {
    expect(check(image())).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 1, totalClusters: 1024 });
    const wild = image(u64(L2 + 8, 100 * C));
    expect(check(wild)).toMatchObject({ corruptions: 1 });
    expect(check(wild, "leaks")).toMatchObject({ corruptions: 1, corruptionsFixed: 0 });
    expect(check(wild, "all")).toMatchObject({ corruptions: 0, corruptionsFixed: 1 });
    expect(check(wild)).toMatchObject({ corruptions: 0 });
    expect(check(image(u64(L2 + 8, DATA)), "all")).toMatchObject({ corruptions: 1, corruptionsFixed: 0 });
    const leaky = image(u64(L2, 0));
    expect(check(leaky)).toMatchObject({ leaks: 1 });
    expect(check(leaky, "leaks")).toMatchObject({ leaks: 0, leaksFixed: 1 });
    expect([leaky.size, check(leaky).leaks]).toEqual([DATA, 0]);
  });

  test("an image not closed in order and damaged is not opened for writing, and keeps its mark", () => {
    const file = image((view) => { u32(16, 3)(view); u64(L2 + 8, 100 * C)(view); });
    expect(() => openNow(file)).toThrow(/not closed in order, and is damaged/);
    expect(file.bytes[16]).toBe(3);
    void openNow(file, { readOnly: true }).close();
    check(file, "all");
    void openNow(file).close();
    expect(file.bytes[16]).toBe(1);
  });

  test("memory and reads have limits", () => {
    expect(() => run(checkQed(image(), { limits: { memory: 0 } }))).toThrow(/over the limit/);
    expect(() => run(checkQed(image(), { limits: { reads: 4096 } }))).toThrow(/over the limit/);
    expect(() => run(checkQed(image(), { signal: { aborted: true } }))).toThrow(/stopped/);
  });
});

test("a write that fails leaves nothing behind: its cluster is used next", () => {
  const file = image(), disk = openNow(file), { size } = file;
  const failing = file.write.bind(file);
  file.write = (offset, from) => { if (offset >= size) throw new Error("no"); return failing(offset, from); };
  expect(() => disk.write(C, new Uint8Array(C).fill(2))).toThrow("no");
  file.write = failing;
  void disk.write(2 * C, new Uint8Array(C).fill(3));
  void disk.close();
  expect([check(file).leaks, file.size]).toEqual([0, size + C]);
});

test("options that no image can have are refused by name", () => {
  for (const [values, message] of [
    [{ cluster_size: 65536, size: 2 ** 60 }, /at most/], [{ cluster_size: 65536, size: 512, preallocation: "full" }, /preallocation=full/], [{ cluster_size: 65536, size: 512, preallocation: "x" }, /does not accept/],
    [{ cluster_size: 65536, size: 512, backing_fmt: "raw" }, /without backing file/], [{ cluster_size: 65536, size: 512, backing_file: "x".repeat(1024) }, /too long/],
  ] as const) expect(() => qedCreation.plan(values)).toThrow(message);
});

test("random damage to header and tables ends in a DiskError or in an answer", () => withSeed((random) => {
  let opened = 0;
  for (let round = 0; round < 300; round++) {
    const file = image((view) => {
      for (let i = 0; i < 1 + random.int(4); i++) view.setUint8(random.pick([random.int(64), L1 + random.int(32), L2 + random.int(32)]), random.int(256));
    });
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
