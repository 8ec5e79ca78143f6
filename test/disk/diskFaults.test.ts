import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { DelayedStorage } from "../../disk/filters/delayed.ts";
import { FaultStorage, type FaultPlan } from "../../disk/filters/fault.ts";
import { open } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { made } from "../crash/scenario.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";
import { Random } from "../support/generator.ts";
import { PowerCutStorage } from "../support/powercut.ts";

const KIB = 1024;

/** A disk beside what it may hold: after a failed change its bytes are old or new, one by one. */
class Victim {
  failures = 0;
  /** What failed changes may have left. */
  readonly #maybe: { readonly offset: number; readonly bytes: Uint8Array }[] = [];

  constructor(readonly disk: Disk, public contents: Uint8Array) {}

  async write(offset: number, length: number, mark: number): Promise<void> {
    const bytes = Uint8Array.from({ length }, (_, i) => ((mark * 31 + i * 7) % 255) + 1);
    await this.#change(offset, bytes, () => this.disk.write(offset, bytes));
  }

  async zero(offset: number, length: number, keep = false): Promise<void> {
    await this.#change(offset, new Uint8Array(length), () => this.disk.zero(offset, length, keep));
  }

  async truncate(size: number): Promise<void> {
    const old = this.contents.length;
    if (await this.attempt(() => this.disk.truncate(size))) {
      // What a failed shrink was to cut off is gone, or shows the base, or is still there.
      if (size < old) this.#maybe.push({ offset: size, bytes: new Uint8Array(old - size) }, { offset: size, bytes: backing.slice(size, old) });
      return;
    }
    const resized = new Uint8Array(size);
    resized.set(this.contents.subarray(0, size));
    this.contents = resized;
    if (size > old) this.#sure(old, new Uint8Array(size - old));
  }

  /** Whether it failed; only ever with a DiskError. */
  async attempt(make: () => void | Promise<void>): Promise<boolean> {
    try {
      await make();
      return false;
    } catch (error) {
      if (!(error instanceof DiskError) || error.what !== "injected") throw error;
      this.failures++;
      return true;
    }
  }

  async expectContents(disk: Disk): Promise<void> {
    const now = new Uint8Array(disk.size);
    await disk.read(0, now);
    expect(now.length).toBe(this.contents.length);
    if (Buffer.compare(now, this.contents) === 0) return;
    const wrong = now.findIndex((byte, i) => byte !== this.contents[i] && !this.#maybe.some(({ offset, bytes }) => i >= offset && bytes[i - offset] === byte));
    expect(wrong, `byte ${wrong} is ${now[wrong]}, should be ${this.contents[wrong]}`).toBe(-1);
  }

  async #change(offset: number, bytes: Uint8Array, make: () => void | Promise<void>): Promise<void> {
    if (await this.attempt(make)) this.#maybe.push({ offset, bytes: bytes.slice() });
    else this.#sure(offset, bytes);
  }

  #sure(offset: number, bytes: Uint8Array): void {
    this.contents.set(bytes, offset);
    for (const maybe of this.#maybe) {
      const from = Math.max(offset, maybe.offset), to = Math.min(offset + bytes.length, maybe.offset + maybe.bytes.length);
      if (from < to) maybe.bytes.set(bytes.subarray(from - offset, to - offset), from - maybe.offset);
    }
  }
}

const backing = new Random(3).bytes(30 * KIB);

async function small(victim: Victim): Promise<void> {
  await victim.write(1000, 3000, 1);
  await victim.attempt(() => victim.disk.flush());
  await victim.write(1200, 100, 2);
  await victim.zero(0, 2 * KIB);
  await victim.attempt(() => victim.disk.flush());
  await victim.write(300, 700, 3);
  await victim.write(40 * KIB, 1500, 4);
  await victim.zero(2 * KIB, KIB, true);
  await victim.attempt(() => victim.disk.flush());
  await victim.write(2 * KIB + 10, 600, 5);
  await victim.truncate(200 * KIB);
  await victim.write(victim.disk.size - 20 * KIB, 600, 6);
  await victim.write(70 * KIB, 600, 8);
  await victim.attempt(() => victim.disk.flush());
  await victim.truncate(50 * KIB);
  await victim.write(3 * KIB, 6 * KIB, 7);
  await victim.attempt(() => victim.disk.flush());
}

/** Past the space that the refcount table can describe. */
async function growing(victim: Victim): Promise<void> {
  for (let i = 0; i < 10; i++) await victim.write((1986 + i * 2) * KIB, 1536, i + 1);
  await victim.attempt(() => victim.disk.flush());
  for (let i = 0; i < 6; i++) await victim.write((2010 + i * 2) * KIB, 512, i + 20);
  await victim.zero(1990 * KIB, 4 * KIB);
  await victim.attempt(() => victim.disk.flush());
  await victim.write(1991 * KIB, 100, 30);
}

const WORK: readonly [name: string, work: (victim: Victim) => Promise<void>, image: ReturnType<typeof made>][] = [
  ["alone", small, made({ size: 96 * KIB, clusterSize: 512 }, (disk) => { void disk.write(0, new Uint8Array(7000).fill(0x77)); })],
  ["above a base", small, made({ size: 96 * KIB, clusterSize: 512, backingFile: "base", backingFormat: "raw" }, undefined, backing)],
  ["with few refcounts a block", small, made({ size: 96 * KIB, clusterSize: 512, refcountBits: 64 }, (disk) => { void disk.write(0, new Uint8Array(9000).fill(0x77)); })],
  ["version 2", small, made({ size: 96 * KIB, clusterSize: 512, version: 2 }, (disk) => { void disk.write(0, new Uint8Array(7000).fill(0x77)); })],
  ["with a refcount table that grows", growing, made({ size: 2432 * KIB, clusterSize: 512, refcountBits: 64 }, (disk) => { void disk.write(0, new Uint8Array(1968 * KIB).fill(0x77)); })],
];

const injected = (kind: "io" | "no-space"): DiskError => new DiskError(kind, "injected");

/** One run with a plan; afterwards nothing fails any more, and all must be well again. Answers how many calls there were. */
async function suffer([, work, image]: (typeof WORK)[number], plan: FaultPlan | undefined, wrap: (storage: Storage) => Storage): Promise<{ calls: number; failures: number }> {
  const memory = new MemoryStorage(image.bytes.slice()), fault = new FaultStorage(memory, undefined);
  const gate = { open: () => new MemoryStorage(backing, "base") };
  const disk = await open(wrap(fault), { format: "qcow2", gate, tableCache: 1 });
  const victim = new Victim(disk, image.contents.slice()), before = fault.calls;
  fault.plan = plan && ((call, index) => plan(call, index - before));
  await work(victim);
  const calls = fault.calls - before;
  fault.plan = undefined;
  await victim.expectContents(disk);
  for (let at = 0; at + 5000 < Math.min(disk.size, 100 * KIB); at += 9000) await victim.write(at, 5000, at);
  await disk.flush();
  await victim.expectContents(disk);
  await disk.close();
  expect(inspectQcow2(memory.bytes).corruptions).toEqual([]);
  await victim.expectContents(await open(new MemoryStorage(memory.bytes.slice()), { format: "qcow2", gate }));
  return { calls, failures: victim.failures };
}

describe.each(WORK)("a failed call surfaces once, loses nothing, and leaves the image sound and usable: %s", (...row) => {
  test.each([["sync", (storage: Storage) => storage], ["async", (storage: Storage) => new DelayedStorage(storage)]] as const)("%s storage, each call in turn", async (mode, wrap) => {
    const { calls } = await suffer(row, undefined, wrap);
    const stride = process.env["LONG"] ? 1 : (mode === "async" ? 5 : 1) * (row[1] === growing ? 2 : 1);
    for (let bad = 0; bad < calls; bad += stride) {
      const { failures } = await suffer(row, (_, index) => (index === bad ? injected("io") : undefined), wrap).catch((error: unknown) => {
        throw new Error(`with call ${bad} of ${calls} failing: ${String(error)}`, { cause: error });
      });
      expect(failures).toBeGreaterThan(0);
    }
    expect(calls).toBeGreaterThan(30);
  });

  test("two failures in a row, and a full disk for a while", async () => {
    const { calls } = await suffer(row, undefined, (storage) => storage);
    for (let bad = 0; bad < calls; bad += process.env["LONG"] ? 1 : row[1] === growing ? 11 : 3) {
      await suffer(row, (_, index) => (index === bad || index === bad + 1 ? injected("io") : undefined), (storage) => storage);
      await suffer(row, (call, index) => (index >= bad && index < bad + 20 && call.op === "write" ? injected("no-space") : undefined), (storage) => storage);
    }
    expect(calls).toBeGreaterThan(30);
  });
});

describe("after a failed flush the next one writes the tables again: what a failed flush had is not to be relied on", () => {
  test.each([
    ["data and refcount blocks before the tables that point at them", "refcount block"], ["refcount table before L2", "refcount table"],
    ["L2 tables before the L1 that points at them", "L2"], ["L1 before what it no longer points at is reused", "L1"],
  ])("%s", async (barrier, role) => {
    const cut = new PowerCutStorage(made({ size: 128 * KIB, clusterSize: 512, refcountBits: 64 }, (disk) => { void disk.write(0, new Uint8Array(20 * KIB)); }).bytes);
    const fault = new FaultStorage(cut, undefined), disk = await open(fault, { format: "qcow2" });
    await disk.write(60 * KIB, new Uint8Array(30 * KIB).fill(1));
    fault.plan = (call) => (call.barrier === barrier ? injected("io") : undefined);
    expect(() => disk.flush()).toThrow("injected");
    fault.plan = undefined;
    const before = cut.log.length;
    await disk.flush();
    const { role: roleOf } = inspectQcow2(cut.bytes), again = cut.log.slice(before).flatMap((entry) => (entry.op === "write" ? [roleOf(entry.offset)] : []));
    expect(again).toContain(role);
  });
});
