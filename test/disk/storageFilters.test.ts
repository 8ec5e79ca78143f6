import { describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { AnewStorage } from "../../disk/filters/anew.ts";
import { DelayedStorage } from "../../disk/filters/delayed.ts";
import { FaultStorage } from "../../disk/filters/fault.ts";
import { ReadOnlyStorage } from "../../disk/filters/readonly.ts";
import { SliceStorage } from "../../disk/filters/slice.ts";
import { StatsStorage } from "../../disk/filters/stats.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { Random, seeded } from "../support/random.ts";

const numbers = (): MemoryStorage => new MemoryStorage(new Uint8Array(100).map((_, i) => i), "numbers");
const kind = (kind: string): object => expect.objectContaining({ name: "DiskError", kind });

/** Every call once, with arguments that change something. */
const calls: Record<string, (storage: Storage) => unknown> = {
  read: (storage) => storage.read(3, new Uint8Array(2)),
  write: (storage) => storage.write(3, new Uint8Array(2)),
  zero: (storage) => storage.zero(5, 2, true),
  discard: (storage) => storage.discard(9, 2),
  truncate: (storage) => storage.truncate(90),
  flush: (storage) => storage.flush("why"),
  close: (storage) => storage.close(),
};

test("a fault hits the chosen call alone, before anything changed", () => {
  const seen: string[] = [];
  const memory = numbers();
  const storage = new FaultStorage(memory, (call, index) => {
    seen.push(`${index} ${call.op} ${call.offset}+${call.length} ${call.barrier ?? ""}`.trim());
    return call.op === "write" ? new DiskError("io", "injected") : undefined;
  });
  const failed = Object.entries(calls).filter(([, call]) => {
    try {
      call(storage);
      return false;
    } catch (error) {
      return (error as DiskError).what === "injected";
    }
  });
  expect(failed.map(([name]) => name)).toEqual(["write"]);
  expect(seen).toEqual(["0 read 3+2", "1 write 3+2", "2 zero 5+2", "3 discard 9+2", "4 truncate 0+90", "5 flush 0+0 why", "6 close 0+0"]);
  expect([...memory.bytes.subarray(3, 8)]).toEqual([3, 4, 0, 0, 7]);
  storage.plan = undefined;
  void storage.write(3, new Uint8Array(2));
  expect(memory.bytes[3]).toBe(0);
});

describe("delayed", () => {
  test("a delayed call is made later and answers with a promise; one that is not, at once", async () => {
    const memory = numbers();
    const delayed = new DelayedStorage(memory);
    const pending = delayed.write(0, new Uint8Array([9]));
    expect(memory.bytes[0]).toBe(0);
    await pending;
    expect(memory.bytes[0]).toBe(9);
    for (const call of Object.values(calls)) expect(call(delayed)).toBeInstanceOf(Promise);
    for (const call of Object.values(calls)) expect(call(new DelayedStorage(numbers(), { delays: () => false }))).toBeUndefined();
  });

  test("a failure of the storage behind rejects", async () => {
    const delayed = new DelayedStorage(new FaultStorage(numbers(), () => new DiskError("no-space", "full")));
    await expect(delayed.write(0, new Uint8Array(1))).rejects.toEqual(kind("no-space"));
  });

  test("the same seed delays the same calls, and calls overtake each other", async () => {
    const order = async (seed: number): Promise<number[]> => {
      const random = new Random(seed);
      const done: number[] = [];
      const delayed = new DelayedStorage(numbers(), { delays: () => random.chance(0.5) });
      await Promise.all(Array.from({ length: 30 }, async (_, i) => {
        const pending = delayed.read(i, new Uint8Array(1));
        if (pending) await pending;
        done.push(i);
      }));
      return done;
    };
    expect(await order(1)).toEqual(await order(1));
    expect(await order(1)).not.toEqual(await order(2));
    expect(await order(1)).not.toEqual(Array.from({ length: 30 }, (_, i) => i));
  });
});

test("stats count what passes", () => {
  const storage = new StatsStorage(numbers());
  for (const call of Object.values(calls)) call(storage);
  void storage.read(0, new Uint8Array(10));
  expect(storage.counts).toEqual({ reads: 2, bytesRead: 12, writes: 1, bytesWritten: 2, flushes: 1 });
  storage.reset();
  expect(storage.counts.bytesRead).toBe(0);
});

test("a read-only view refuses every change and passes reads", () => {
  const memory = numbers();
  const storage = new ReadOnlyStorage(memory);
  for (const name of ["write", "zero", "discard", "truncate"]) expect(() => calls[name]?.(storage)).toThrow(kind("read-only"));
  const into = new Uint8Array(2);
  void storage.read(3, into);
  storage.flush();
  expect([...into]).toEqual([3, 4]);
  expect([storage.readOnly, storage.name, storage.size]).toEqual([true, "numbers", 100]);
});

describe("slice", () => {
  test("a window reads and changes only what is inside", () => {
    const memory = numbers();
    const slice = new SliceStorage(memory, 10, 20);
    const into = new Uint8Array(8).fill(0xee);
    void slice.read(15, into);
    expect([...into]).toEqual([25, 26, 27, 28, 29, 0, 0, 0]);
    void slice.read(40, into.fill(0xee));
    expect([...into]).toEqual(Array.from(into, () => 0));
    void slice.write(18, new Uint8Array([1, 1]));
    void slice.zero(15, 100);
    void slice.discard(19, 100);
    expect([...memory.bytes.subarray(24, 32)]).toEqual([24, 0, 0, 0, 0, 0, 30, 31]);
    expect(() => slice.write(19, new Uint8Array(2))).toThrow(kind("out-of-bounds"));
    expect(() => slice.truncate(21)).toThrow(kind("unsupported"));
    expect(slice.size).toBe(20);
  });

  test("a window to the end grows with what it is a window into", () => {
    const memory = numbers(), slice = new SliceStorage(memory, 90, 10, true), into = new Uint8Array(4);
    void slice.write(9, new Uint8Array([7, 8, 9]));
    expect([slice.size, memory.size]).toEqual([12, 102]);
    void slice.read(8, into);
    expect([...into]).toEqual([98, 7, 8, 9]);
    void slice.truncate(5);
    expect([slice.size, memory.size]).toEqual([5, 95]);
  });

  test.each([[-1, 5], [0, -5], [0.5, 5], [2 ** 53 - 1, 2], [0, NaN]])("no window of %d, %d", (start, length) => {
    expect(() => new SliceStorage(numbers(), start, length)).toThrow(kind("invalid-argument"));
  });
});

describe("a device as a new file", () => {
  seeded("reads and grows as an empty file does", async (random) => {
    const device = new MemoryStorage(random.bytes(5000), "device"), anew = new AnewStorage(random.chance(0.5) ? new DelayedStorage(device) : device), file = new MemoryStorage();
    for (let step = 0; step < 60; step++) {
      const offset = random.int(4000), length = random.int(1000), bytes = random.bytes(length), kind = random.int(4);
      for (const storage of [anew, file]) {
        if (kind < 2) await storage.write(offset, bytes);
        else if (kind === 2) await storage.zero(offset, length);
        else await storage.truncate(offset);
      }
      expect(anew.size).toBe(file.size);
      const into = new Uint8Array(5000), wanted = new Uint8Array(5000);
      await anew.read(0, into);
      await file.read(0, wanted);
      expect(Buffer.compare(into, wanted)).toBe(0);
    }
  });

  test("no further than the device reaches", () => {
    const device = new MemoryStorage(new Uint8Array(100).fill(1), "device"), anew = new AnewStorage(device);
    expect(() => anew.truncate(101)).toThrow(kind("no-space"));
    expect(() => anew.write(99, new Uint8Array(2))).toThrow(kind("no-space"));
    expect([anew.size, device.bytes.every((byte) => byte === 1)]).toEqual([0, true]);
  });
});
