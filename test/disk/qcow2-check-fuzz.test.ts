import { describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import type { CheckResult } from "../../disk/formats/check.ts";
import { checkQcow2, repairDirty, type Qcow2CheckOptions } from "../../disk/formats/qcow2/check.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Pending, Storage } from "../../disk/storage.ts";
import { run } from "../../disk/task.ts";
import { seeded, type Random } from "../support/random.ts";

const MIB = 2 ** 20;

/** A storage of any size with a few bytes in it; it counts what is read, and refuses to be filled. */
class HugeStorage implements Storage {
  readonly name = "huge";
  readonly readOnly = false;
  reads = 0;
  written = 0;

  constructor(public size: number, readonly parts: readonly (readonly [offset: number, bytes: Uint8Array])[]) {}

  read(offset: number, into: Uint8Array): void {
    this.reads += into.length;
    into.fill(0);
    for (const [at, bytes] of this.parts) {
      const from = Math.max(offset, at), to = Math.min(offset + into.length, at + bytes.length);
      if (from < to) into.set(bytes.subarray(from - at, to - at), from - offset);
    }
  }

  write(offset: number, from: Uint8Array): void {
    this.written += from.length;
    this.size = Math.max(this.size, offset + from.length);
  }

  zero(): Pending {}
  discard(): Pending {}
  truncate(): Pending {}
  flush(): Pending {}
  close(): Pending {}
}

function attempt(file: Storage, options: Qcow2CheckOptions): CheckResult | DiskError {
  try {
    const result = run(checkQcow2(file, options));
    if (result instanceof Promise) throw new Error("expected a synchronous check");
    return result;
  } catch (error) {
    if (error instanceof DiskError) return error;
    throw error;
  }
}

function makeImage(random: Random): Uint8Array {
  const file = new MemoryStorage(), clusterSize = random.pick([512, 1024, 4096, 16384]);
  void run(createQcow2(file, { size: 64 * 1024, clusterSize, extendedL2: clusterSize === 16384, refcountBits: random.pick([1, 2, 4, 8, 16, 32, 64] as const) }));
  const disk = open(file);
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  for (let i = 0; i < 5; i++) void disk.write(random.int(50_000), random.bytes(random.int(6000)));
  void disk.close();
  return file.bytes.slice();
}

/** Changes that parsers mind: in the header, in entries of tables, anywhere. */
function mutate(bytes: Uint8Array, random: Random): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let n = 1 + random.int(6); n > 0; n--) {
    const at = random.chance(0.3) ? random.int(120) : random.int(bytes.length - 8);
    const entry = at - (at % 8), value = random.pick([0n, 1n, 0xffff_ffff_ffff_ffffn, 1n << BigInt(random.int(64)), BigInt(random.u32()), BigInt(random.int(bytes.length))]);
    if (random.chance(0.4)) bytes[at] = random.int(256);
    else if (random.chance(0.5)) view.setBigUint64(entry, value);
    else view.setBigUint64(entry, view.getBigUint64(entry) ^ value);
  }
}

describe("qcow2 check of hostile images", () => {
  seeded("answers with a result or a DiskError, and what a repair calls clean is clean", (random) => {
    const images = Array.from({ length: 12 }, () => makeImage(random));
    let done = 0, repaired = 0;
    while (done < 2000) {
      const image = random.pick(images), bytes = image.slice(0, random.chance(0.1) ? 200 + random.int(image.length - 200) : image.length);
      mutate(bytes, random);
      done++;
      const file = new MemoryStorage(bytes), before = bytes.slice(), looked = attempt(file, {});
      expect(Buffer.compare(file.bytes, before)).toBe(0);
      const mode = random.pick(["leaks", "all"] as const), result = attempt(file, { repair: mode });
      // What can be looked at can be repaired, or it is said why not.
      if (looked instanceof DiskError || result instanceof DiskError) continue;
      repaired++;
      const again = attempt(file, { repair: mode });
      if (again instanceof DiskError) throw again;
      // What was called clean is clean. Where tables overlap, mending one may damage the other, for ever.
      if (result.corruptions === 0 && result.checkErrors === 0) expect([again.leaksFixed, again.corruptionsFixed, again.leaks, again.corruptions]).toEqual([0, 0, result.leaks, 0]);
      // A repair reads a snapshot table that a look refuses, and may find more behind it.
      if (looked.checkErrors === 0) expect(result.corruptions).toBeLessThanOrEqual(looked.corruptions);
    }
    expect(repaired).toBeGreaterThan(done / 10);
  }, 60_000);

  /** An image of a file that claims to be huge. */
  function huge(fields: { size?: bigint; l1Entries: number; clusterBits: number; fileSize: number; l1?: Uint8Array; snapshots?: number; tableClusters?: number }): HugeStorage {
    const { l1Entries, clusterBits, fileSize, l1 = new Uint8Array(0), snapshots = 0, tableClusters = 1 } = fields, head = new Uint8Array(112), view = new DataView(head.buffer), cluster = 2 ** clusterBits;
    view.setUint32(0, 0x514649fb);
    view.setUint32(4, 3);
    view.setUint32(20, clusterBits);
    view.setBigUint64(24, fields.size ?? 0n);
    view.setUint32(36, l1Entries);
    view.setBigUint64(40, BigInt(64 * MIB));
    view.setBigUint64(48, BigInt(2 * MIB));
    view.setUint32(56, tableClusters);
    view.setUint32(60, snapshots);
    view.setBigUint64(64, BigInt(snapshots === 0 ? 0 : 128 * MIB));
    view.setUint32(96, 4);
    view.setUint32(100, 112);
    return new HugeStorage(Math.max(fileSize, cluster), [[0, head], [64 * MIB, l1]]);
  }

  const spread = (entries: number, distance: number): Uint8Array => {
    const bytes = new Uint8Array(entries * 8), view = new DataView(bytes.buffer);
    for (let i = 0; i < entries; i++) view.setBigUint64(i * 8, BigInt(256 * MIB + i * distance));
    return bytes;
  };

  test.each([
    ["a file of 8 PiB", huge({ l1Entries: 1, clusterBits: 16, fileSize: 2 ** 53 - 1 })],
    ["2^31 clusters", huge({ l1Entries: 1, clusterBits: 16, fileSize: 2 ** 46 })],
    ["an L1 of 32 MiB in a hole", huge({ l1Entries: 4 * MIB, clusterBits: 16, fileSize: 2 ** 46 })],
    ["an L1 full of tables in holes", huge({ l1Entries: 4 * MIB, clusterBits: 16, fileSize: 2 ** 46, l1: spread(4 * MIB, 65536) })],
    ["an L1 full of large tables far apart", huge({ l1Entries: 4 * MIB, clusterBits: 21, fileSize: 2 ** 51, l1: spread(4 * MIB, 2 ** 28) })],
    ["an L1 full of misaligned tables", huge({ l1Entries: 4 * MIB, clusterBits: 21, fileSize: 2 ** 51, l1: spread(4 * MIB, 512 + 2 ** 21) })],
    ["65536 snapshots in a hole", huge({ l1Entries: 1, clusterBits: 16, fileSize: 2 ** 46, snapshots: 65536 })],
    ["a refcount table of 8 MiB", huge({ l1Entries: 1, clusterBits: 16, fileSize: 2 ** 46, tableClusters: 128 })],
    ["a refcount table too large", huge({ l1Entries: 1, clusterBits: 16, fileSize: 2 ** 46, tableClusters: 2 ** 31 })],
    ["small clusters", huge({ l1Entries: 4 * MIB, clusterBits: 9, fileSize: 2 ** 40 - 512, l1: spread(4 * MIB, 512) })],
  ])("%s costs little", (_, file) => {
    const started = Date.now(), before = process.memoryUsage().arrayBuffers;
    attempt(file, {});
    attempt(file, { repair: "all" });
    expect(Date.now() - started).toBeLessThan(30_000);
    expect(file.written).toBeLessThan(64 * MIB);
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(900 * MIB);
  }, 60_000);

  test("limits are the caller's", () => {
    const file = huge({ l1Entries: MIB, clusterBits: 16, fileSize: 2 ** 46, l1: spread(MIB, 65536) });
    expect(attempt(file, { limits: { reads: 8 * MIB } })).toMatchObject({ kind: "unsupported", message: expect.stringContaining("limits.reads") as string });
    expect(attempt(file, { limits: { memory: 8192 } })).toMatchObject({ kind: "unsupported", message: expect.stringContaining("limits.memory") as string });
  });

  test("a check can be stopped, and tells how far it is", () => {
    const file = huge({ l1Entries: 1000, clusterBits: 16, fileSize: 2 ** 40, l1: spread(1000, 65536) }), seen: number[] = [], signal = { aborted: false };
    const result = attempt(file, { signal, onProgress: (done, total) => {
      seen.push(done / total);
      if (seen.length === 20) signal.aborted = true;
    } });
    expect(result).toMatchObject({ kind: "io", message: expect.stringContaining("stopped") as string });
    expect(seen.every((part) => part > 0 && part <= 1)).toBe(true);
  });

  test("what is no image, or none that it knows, is refused", () => {
    expect(attempt(new MemoryStorage(new Uint8Array(1000)), {})).toMatchObject({ kind: "invalid-format" });
    const file = huge({ l1Entries: 1, clusterBits: 16, fileSize: MIB });
    file.parts[0]?.[1].set([0x80], 72);
    expect(attempt(file, {})).toMatchObject({ kind: "unsupported", message: expect.stringContaining("bit 63") as string });
    expect(() => run(repairDirty(file))).toThrow(DiskError);
  });
});
