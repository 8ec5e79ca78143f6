import { expect } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import type { Gate } from "../../disk/gate.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { type Random, seeded } from "../support/random.ts";

const KIB = 1024, ROUNDS = process.env["LONG"] ? 60_000 : 1_500;
/** No image of 30 KiB has any business with a file beyond this. */
const FURTHEST = 64 * 2 ** 20;
const SURPRISES = [0n, 1n, 512n, 513n, 0x7fffn, 0x10000n, 0xffff_ffffn, 0x1_0000_0000n, 0x00ff_ffff_ffff_fe00n, 1n << 62n, 1n << 63n, (1n << 63n) | 512n, (1n << 64n) - 1n,
  // Zero clusters that own space where there cannot be any.
  (1n << 63n) | 0x00ff_ffff_ffff_0001n, (1n << 63n) | 513n, (1n << 63n) | 0x10_0001n, (1n << 63n) | 0x8201n, (1n << 63n) | 0x0601n];

/** A file that reports a write that no honest image needs, instead of making it. */
class Fenced extends MemoryStorage {
  outside: string | undefined;

  override write(offset: number, from: Uint8Array): void {
    if (!(offset >= 0 && offset + from.length <= FURTHEST)) this.outside ??= `write of ${from.length} bytes at ${offset}`;
    else void super.write(offset, from);
  }

  override truncate(size: number): void {
    if (!(size >= 0 && size <= FURTHEST)) this.outside ??= `truncate to ${size}`;
    else void super.truncate(size);
  }
}

/** The data file that some images name. It is as long as they say their disk is, so its writes prove nothing: far ones are dropped. */
class DataFile extends MemoryStorage {
  override write(offset: number, from: Uint8Array): void {
    if (offset + from.length <= FURTHEST) void super.write(offset, from);
  }

  override truncate(size: number): void {
    if (size <= FURTHEST) void super.truncate(size);
  }
}

const gate = (base: number): Gate => ({ open: (name) => (name === "data" ? new DataFile(new Uint8Array(64 * KIB), "data") : new MemoryStorage(new Uint8Array(base), "base")) });

function seedImage(random: Random): Uint8Array {
  const file = new MemoryStorage(), extendedL2 = random.chance(0.25), clusterSize = extendedL2 ? 16384 : random.pick([512, 1024, 4096]), version = extendedL2 ? 3 : random.pick([2, 3, 3] as const);
  void run(createQcow2(file, { size: 64 * KIB, clusterSize, version, extendedL2, ...(version === 3 && random.chance(0.2) ? { dataFile: "data", dataFileRaw: false } : {}), ...(version === 3 ? { refcountBits: random.pick([1, 16, 64]) } : {}), ...(random.chance(0.3) ? { backingFile: "base", backingFormat: "raw" } : {}) }));
  const disk = open(file, { gate: gate(0) });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  for (let i = 0; i < 6; i++) void disk.write(random.int(60) * KIB, random.bytes(1 + random.int(3000)));
  void disk.zero(8 * KIB, 4 * KIB, true);
  void disk.close();
  return file.bytes.slice();
}

/** One to four changes where they hurt: header fields, table entries, lengths of the file. */
function mutate(random: Random, image: Uint8Array): Uint8Array {
  let bytes = image.slice();
  const view = new DataView(bytes.buffer), clusterSize = 2 ** view.getUint32(20);
  const l1 = Number(view.getBigUint64(40)), table = Number(view.getBigUint64(48)), block = Number(view.getBigUint64(table));
  const l2 = Number(view.getBigUint64(l1) & 0x00ff_ffff_ffff_fe00n);
  for (let n = 1 + random.int(4); n > 0; n--) {
    const where = random.pick([0, 0, l1, l2, l2, l2, table, block, random.int(bytes.length)]);
    const at = where + random.int(where === 0 ? 120 : Math.min(clusterSize, 200));
    if (at + 8 > bytes.length) continue;
    const aligned = random.chance(0.7) ? at - (at % (where === 0 ? 4 : 8)) : at, how = random.float();
    if (how < 0.3) bytes[aligned] = random.int(256);
    else if (how < 0.5 && where === 0) view.setUint32(aligned, random.pick([0, 1, 2, 3, 9, 21, 22, 64, 104, 65536, 0x7fff_ffff, 0xffff_ffff]));
    else if (how < 0.8) view.setBigUint64(aligned, random.pick(SURPRISES));
    else view.setBigUint64(aligned, BigInt(random.int(bytes.length)) | (random.chance(0.5) ? 1n << 63n : 0n) | (random.chance(0.2) ? 1n << 62n : 0n) | (random.chance(0.3) ? 1n : 0n));
  }
  if (random.chance(0.1)) bytes = bytes.slice(0, random.int(bytes.length));
  return bytes;
}

/** Everything that a guest and a user do with it; each step may be refused, and only with a DiskError. */
function use(random: Random, file: Fenced): void {
  const readOnly = random.chance(0.3), attempt = (act: () => unknown): void => {
    try {
      if (act() instanceof Promise) throw new Error("a promise from a synchronous storage");
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
    }
  };
  attempt(() => {
    const disk = open(file, { readOnly, format: "qcow2", gate: gate(3000) });
    if (disk instanceof Promise) throw new Error("a promise from a synchronous storage");
    for (let step = 0; step < 12; step++) {
      const offset = random.pick([0, random.int(64 * KIB), disk.size - 2000, random.int(Math.max(1, disk.size))]), length = 1 + random.int(6000);
      attempt(random.pick([
        () => disk.read(Math.max(0, offset), new Uint8Array(length)), () => disk.write(offset, new Uint8Array(length).fill(7)),
        () => disk.zero(offset, length, random.chance(0.5)),
        () => disk.writePacked(random.int(16) * disk.packSize, random.text(disk.packSize)), () => disk.discard(offset, length), () => disk.flush(),
      ]));
    }
    if (random.chance(0.3)) attempt(() => disk.truncate(random.pick([512, 200 * KIB, 32 * KIB])));
    attempt(() => disk.close());
  });
}

seeded("a hostile image ends in a DiskError or works: no other exception, no hang, no large allocation, no write far outside", (random) => {
  let image = seedImage(random), slowest = 0;
  const before = process.memoryUsage().arrayBuffers;
  for (let round = 0; round < ROUNDS; round++) {
    if (round % 50 === 0) image = seedImage(random);
    const bytes = mutate(random, image), file = new Fenced(bytes.slice(), "hostile"), from = performance.now();
    try {
      use(random, file);
    } catch (error) {
      throw new Error(`round ${round}: ${String(error)}`, { cause: error });
    }
    slowest = Math.max(slowest, performance.now() - from);
    expect(file.outside).toBeUndefined();
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(400 * 2 ** 20);
  }
  expect(slowest).toBeLessThan(5000);
}, 900_000);
