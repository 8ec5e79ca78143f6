import { expect } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import type { Random } from "./random.ts";

/** What a disk should hold, beside the disk: operations go to both. */
export class ModelDisk {
  bytes: Uint8Array;

  constructor(readonly disk: Disk, initial?: Uint8Array) {
    this.bytes = new Uint8Array(disk.size);
    if (initial !== undefined) this.bytes.set(initial.subarray(0, disk.size));
  }

  /** The same contents behind another disk: after a reopen. */
  on(disk: Disk): ModelDisk {
    expect(disk.size).toBe(this.bytes.length);
    return new ModelDisk(disk, this.bytes);
  }

  write(offset: number, from: Uint8Array): void | Promise<void> {
    this.bytes.set(from, offset);
    return this.disk.write(offset, from);
  }

  /** Whole blocks only; `Disk.writePacked`. */
  writePacked(offset: number, from: Uint8Array): void | Promise<void> {
    this.bytes.set(from, offset);
    return this.disk.writePacked(offset, from);
  }

  zero(offset: number, length: number, keep: boolean): void | Promise<void> {
    this.bytes.fill(0, offset, offset + length);
    return this.disk.zero(offset, length, keep);
  }

  /** A discarded byte may stay or become zero; which, is read back. */
  async discard(offset: number, length: number): Promise<void> {
    await this.disk.discard(offset, length);
    const now = new Uint8Array(length);
    await this.disk.read(offset, now);
    const wrong = now.findIndex((byte, i) => byte !== 0 && byte !== this.bytes[offset + i]);
    expect(wrong, `byte ${offset + wrong} after a discard`).toBe(-1);
    this.bytes.set(now, offset);
  }

  async truncate(size: number): Promise<void> {
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    await this.disk.truncate(size);
    this.bytes = bytes;
  }

  async compare(offset = 0, length = this.bytes.length - offset): Promise<void> {
    const now = new Uint8Array(length).fill(0xee);
    await this.disk.read(offset, now);
    expectSame(now, this.bytes.subarray(offset, offset + length), offset);
  }
}

/** Fails naming the first byte that differs: a diff of megabytes helps nobody. */
export function expectSame(actual: Uint8Array, wanted: Uint8Array, offset = 0): void {
  expect(actual.length).toBe(wanted.length);
  if (Buffer.compare(actual, wanted) === 0) return;
  const at = actual.findIndex((byte, i) => byte !== wanted[i]);
  expect.fail(`byte ${offset + at} is ${actual[at]}, should be ${wanted[at]}`);
}

/** A range of a disk of `size` bytes: of all sizes, often aligned, often at an end, never empty. */
export function anyRange(random: Random, size: number, largest = size): { offset: number; length: number } {
  largest = Math.min(largest, size);
  let length = Math.max(1, Math.min(largest, Math.floor(2 ** (random.float() * Math.log2(largest)))));
  let offset = random.chance(0.1) ? size - length : random.int(size - length + 1);
  if (random.chance(0.6)) {
    const unit = random.pick([1, ...[512, 4096, 65536].filter((one) => one <= length)]);
    [offset, length] = [offset - (offset % unit), length - (length % unit)];
  }
  return { offset, length };
}

/** Whole blocks of a disk, as `Disk.writePacked` wants them: at most `largest` bytes if a block is not more, or fewer at the disk's end. */
export function anyBlocks(random: Random, disk: Disk, largest: number): { offset: number; length: number } {
  const block = disk.packSize, offset = random.int(Math.ceil(disk.size / block)) * block;
  return { offset, length: Math.min((1 + random.int(Math.ceil(largest / block))) * block, disk.size - offset) };
}

/** One random change, in the model at once and on the disk; the promise or nothing is the disk's answer. */
export function anyChange(random: Random, model: ModelDisk, largest: number): void | Promise<void> {
  const { offset, length } = anyRange(random, model.bytes.length, largest);
  const kind = random.float();
  if (model.disk.packs && random.chance(0.08)) {
    const blocks = anyBlocks(random, model.disk, largest / 3);
    return model.writePacked(blocks.offset, random.chance(0.2) ? random.bytes(blocks.length) : random.text(blocks.length));
  }
  if (kind < 0.7) return model.write(offset, random.bytes(length));
  if (kind < 0.9) return model.zero(offset, length, random.chance(0.3));
  return model.write(offset, new Uint8Array(length));
}
