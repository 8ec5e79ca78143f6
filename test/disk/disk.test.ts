import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import type { Call } from "../../disk/filters/each.ts";
import { DelayedStorage } from "../../disk/filters/delayed.ts";
import { ReadFence } from "../../disk/image.ts";
import { Table, TableCache } from "../../disk/metadata/table.ts";
import { open } from "../../disk/open.ts";
import { all } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { made, openNow } from "../crash/scenario.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";

const KIB = 1024, C = 4096;
const settle = async (): Promise<void> => { for (let i = 0; i < 60; i++) await Promise.resolve(); };
const filled = (length: number, value: number): Uint8Array => new Uint8Array(length).fill(value);

/** A storage whose chosen calls wait for the test. */
class Held {
  readonly waiting: { readonly call: Call; readonly go: () => void }[] = [];
  hold: (call: Call) => boolean = () => false;
  readonly storage: DelayedStorage;

  constructor(readonly memory: MemoryStorage) {
    this.storage = new DelayedStorage(memory, {
      delays: (call) => this.hold(call),
      wait: (call) => new Promise((go) => { this.waiting.push({ call, go: () => { go(); } }); }),
    });
  }

  release(): void {
    this.hold = () => false;
    for (const { go } of this.waiting.splice(0)) go();
  }
}

async function held(fill: (disk: Disk) => void, size = 256 * KIB): Promise<{ held: Held; disk: Disk }> {
  const held = new Held(new MemoryStorage(made({ size, clusterSize: C }, fill).bytes));
  return { held, disk: await open(held.storage, { format: "qcow2" }) };
}

describe("Disk", () => {
  test("overlapping writes in flight end in the order of issue, whatever the storage makes of them", async () => {
    const { held: hold, disk } = await held((disk) => { void disk.write(0, filled(8 * KIB, 1)); });
    void disk.read(0, new Uint8Array(1));
    hold.hold = ({ op }) => op === "write";
    const first = disk.write(100, filled(1000, 2)), second = disk.write(600, filled(1000, 3)), apart = disk.write(5000, filled(10, 4));
    await settle();
    expect(hold.waiting.map(({ call }) => call.length)).toEqual([1000, 10]);
    hold.release();
    await all([first, second, apart]);
    const now = new Uint8Array(1700);
    await disk.read(0, now);
    expect([...new Set(now.subarray(100, 600))]).toEqual([2]);
    expect([...new Set(now.subarray(600, 1600))]).toEqual([3]);
  });

  test("several writes into one fresh cluster take one cluster, and all arrive", async () => {
    const { held: hold, disk } = await held(() => {});
    hold.hold = ({ op }) => op !== "flush";
    const writes = [0, 1, 2, 3].map((i) => Promise.resolve(disk.write(i * KIB, filled(KIB, i + 1))));
    for (let i = 0; i < 100; i++) {
      await settle();
      for (const { go } of hold.waiting.splice(0)) go();
    }
    hold.release();
    await Promise.all(writes);
    await disk.close();
    const { leaks, corruptions } = inspectQcow2(hold.memory.bytes);
    expect([leaks, corruptions]).toEqual([0, []]);
    const now = new Uint8Array(4 * KIB);
    void openNow(hold.memory).read(0, now);
    expect([0, 1, 2, 3].map((i) => now[i * KIB + 500])).toEqual([1, 2, 3, 4]);
    expect(hold.memory.size).toBe(6 * C);
  });

  test("a read in flight while its cluster is dropped sees old data or zeros, never what took the cluster next", async () => {
    const { held: hold, disk } = await held((disk) => { void disk.write(0, filled(C, 1)); void disk.write(16 * KIB, filled(C, 9)); });
    void disk.read(0, new Uint8Array(1));
    hold.hold = ({ op, length }) => op === "read" && length === C;
    const into = filled(C, 0xee), reading = disk.read(0, into);
    expect(hold.waiting.length).toBe(1);
    hold.hold = () => false;
    await disk.discard(0, C);
    await disk.flush();
    await disk.flush();
    for (let at = 64; at < 128; at += 4) await disk.write(at * KIB, filled(C, 0x66));
    await disk.flush();
    hold.release();
    await reading;
    expect([...new Set(into)].filter((byte) => byte !== 0 && byte !== 1)).toEqual([]);
    // With the read gone the space is free again.
    const before = hold.memory.size;
    await disk.flush();
    await disk.write(200 * KIB, filled(C, 0x77));
    expect(hold.memory.size).toBe(before);
  });

  test("so does a read in flight while its cluster moves: a backing cluster is copied, a zero cluster filled", async () => {
    const { held: hold, disk } = await held((disk) => { void disk.write(0, filled(2 * C, 1)); });
    void disk.read(0, new Uint8Array(1));
    hold.hold = ({ op, length }) => op === "read" && length === 2 * C;
    const into = filled(2 * C, 0xee), reading = disk.read(0, into);
    hold.hold = () => false;
    await disk.zero(0, C);
    await disk.flush();
    await disk.write(0, filled(C, 2));
    await disk.write(128 * KIB, filled(C, 3));
    await disk.flush();
    hold.release();
    await reading;
    expect([...new Set(into)].every((byte) => byte <= 2)).toBe(true);
    expect([...new Set(into.subarray(C))]).toEqual([1]);
  });

  test("a write issued while the disk shrinks waits, and is refused where the disk ends by then", async () => {
    const { held: hold, disk } = await held((disk) => { void disk.write(0, filled(200 * KIB, 1)); });
    hold.hold = ({ op }) => op === "flush";
    const shrinking = disk.truncate(64 * KIB), inside = disk.write(10 * KIB, filled(KIB, 2)), cut = disk.write(100 * KIB, filled(KIB, 3));
    const refusal = Promise.resolve(cut).then(() => undefined, (error: unknown) => error);
    await settle();
    hold.hold = () => false;
    hold.release();
    await all([shrinking, inside]);
    expect(await refusal).toMatchObject({ kind: "out-of-bounds" });
    await disk.truncate(128 * KIB);
    const now = new Uint8Array(128 * KIB);
    await disk.read(0, now);
    expect([now[10 * KIB], now[0], now[100 * KIB], now[64 * KIB]]).toEqual([2, 1, 0, 0]);
    await disk.close();
    expect(inspectQcow2(hold.memory.bytes)).toMatchObject({ corruptions: [], leaks: 0 });
  });

  test("close waits for changes and reads in flight, a copy on write among them", async () => {
    const { held: hold, disk } = await held((disk) => { void disk.write(0, filled(C, 1)); });
    const into = new Uint8Array(10);
    hold.hold = ({ op }) => op === "read" || op === "write";
    const work = [disk.write(20 * KIB + 100, filled(10, 5)), disk.read(5, into)], closing = disk.close();
    expect(() => disk.read(0, into)).toThrow(/after close/);
    for (let i = 0; i < 50; i++) {
      await settle();
      for (const { go } of hold.waiting.splice(0)) go();
    }
    await all([...work, closing]);
    expect([...into]).toEqual(Array.from({ length: 10 }, () => 1));
    const now = new Uint8Array(10);
    void openNow(hold.memory).read(20 * KIB + 100, now);
    expect(now[0]).toBe(5);
    expect(disk.close()).toBeUndefined();
  });

  test("close touches no file while a read is in flight", async () => {
    const { held: hold, disk } = await held((disk) => { void disk.write(0, filled(C, 1)); });
    void disk.read(0, new Uint8Array(1));
    hold.hold = ({ op }) => op === "read" || op === "close";
    const reading = disk.read(0, new Uint8Array(10)), closing = disk.close();
    await settle();
    expect(hold.waiting.map(({ call }) => call.op)).toEqual(["read"]);
    hold.release();
    await all([reading, closing]);
  });

  test("a failing read waits for its other parts before it tells", async () => {
    const { held: hold, disk } = await held((disk) => {
      void disk.write(0, filled(C, 1));
      void disk.write(2 * C, filled(C, 3));
    });
    void disk.read(0, new Uint8Array(1));
    let told = false;
    hold.hold = ({ op }) => op === "read";
    const reading = Promise.resolve(disk.read(0, new Uint8Array(3 * C))).then(() => { told = true; }, () => { told = true; });
    expect(hold.waiting.length).toBe(2);
    hold.waiting[0]?.go();
    await settle();
    expect(told).toBe(false);
    hold.release();
    await reading;
    expect(told).toBe(true);
  });

  test("nothing that does not fit is begun, and sizes that are none are refused", async () => {
    const { disk } = await held(() => {}, 64 * KIB);
    for (const size of [-512, 0.5, NaN, Infinity, 100]) expect(() => disk.truncate(size)).toThrow(DiskError);
    expect(() => disk.zero(60 * KIB, 5 * KIB)).toThrow(/the disk has 65536/);
    expect(() => disk.discard(-1, 5)).toThrow(/the disk has 65536/);
  });
});

test("ReadFence: a moment has passed when all reads that began before it have ended", () => {
  const fence = new ReadFence(), a = fence.begin(), first = fence.now(), b = fence.begin(), second = fence.now();
  expect([fence.passed(first), fence.passed(second)]).toEqual([false, false]);
  fence.end(b);
  expect([fence.passed(first), fence.passed(second)]).toEqual([false, false]);
  fence.end(a);
  const c = fence.begin();
  expect([fence.passed(first), fence.passed(second), fence.passed(fence.now())]).toEqual([true, true, false]);
  fence.end(c);
  expect(fence.passed(fence.now())).toBe(true);
});

describe("TableCache", () => {
  const file = (): MemoryStorage => new MemoryStorage(Uint8Array.from({ length: 64 * 512 }, (_, i) => Math.floor(i / 512)));
  const load = (cache: TableCache, index: number): Table => {
    const table = run(cache.load(index, index * 512));
    if (table instanceof Promise) throw new Error("expected a synchronous load");
    return table;
  };

  test("keeps at most its limit of clean tables, and at least four", () => {
    const cache = new TableCache(file(), 512, 8 * 512);
    for (let index = 0; index < 40; index++) load(cache, index);
    expect(Array.from({ length: 40 }, (_, index) => cache.get(index)).filter(Boolean).length).toBe(8);
    const tiny = new TableCache(file(), 512, 1);
    for (let index = 0; index < 40; index++) load(tiny, index);
    expect(Array.from({ length: 40 }, (_, index) => tiny.get(index)).filter(Boolean).length).toBe(4);
  });

  test("never drops a dirty table; says when too much is dirty; drops again once it is clean", () => {
    const storage = file(), cache = new TableCache(storage, 512, 8 * 512);
    for (let index = 0; index < 4; index++) {
      expect(cache.full).toBe(false);
      const table = load(cache, index);
      table.bytes[0] = 0xaa;
      table.touch(0, 1);
      cache.modify(index, table);
    }
    expect(cache.full).toBe(true);
    for (let index = 10; index < 60; index++) load(cache, index);
    expect([0, 1, 2, 3].map((index) => cache.get(index)?.bytes[0])).toEqual([0xaa, 0xaa, 0xaa, 0xaa]);
    void run(cache.writeBack());
    expect([0, 1, 2, 3].map((index) => storage.bytes[index * 512])).toEqual([0xaa, 0xaa, 0xaa, 0xaa]);
    expect(cache.dirty).toBe(true);
    cache.clean();
    expect([cache.dirty, cache.full]).toEqual([false, false]);
    for (let round = 0; round < 3; round++) for (let index = 10; index < 60; index++) load(cache, index);
    expect([0, 1, 2, 3].map((index) => cache.get(index))).toEqual([undefined, undefined, undefined, undefined]);
  });

  test("two loads of one table read it once; when the first fails the second tries itself", async () => {
    const held = new Held(file()), cache = new TableCache(held.storage, 512, 8 * 512);
    held.hold = () => true;
    const both = [run(cache.load(3, 3 * 512)), run(cache.load(3, 3 * 512))];
    await settle();
    expect(held.waiting.length).toBe(1);
    held.release();
    const [a, b] = await Promise.all(both.map((one) => Promise.resolve(one)));
    expect(a).toBe(b);
    let checks = 0;
    const check = (): void => { if (++checks === 1) throw new DiskError("corrupt", "first"); };
    held.hold = () => true;
    const first = Promise.resolve(run(cache.load(4, 4 * 512, check))), second = Promise.resolve(run(cache.load(4, 4 * 512, check)));
    held.release();
    await expect(first).rejects.toThrow("first");
    expect((await second).bytes[0]).toBe(4);
  });

  test("a table writes back the sectors that changed, and only those", () => {
    const storage = new MemoryStorage(new Uint8Array(8192)), table = new Table(4096, filled(2048, 5));
    table.touch(600, 610);
    table.touch(1000, 1030);
    void run(table.writeBack(storage));
    expect(storage.bytes.findIndex((byte) => byte === 5)).toBe(4096 + 512);
    expect(storage.bytes.lastIndexOf(5)).toBe(4096 + 1535);
    expect(table.dirty).toBe(true);
    table.clean();
    expect(table.dirty).toBe(false);
  });
});
