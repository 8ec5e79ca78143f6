import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { FORMATS } from "../../disk/formats/registry.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { makeBochs } from "./bochs.ts";
import { disk86 } from "./cli.ts";
import { makeCloop } from "./cloop.ts";
import { makeDmg } from "./dmg.ts";
import { Random } from "./random.ts";
import { makeUmlCow } from "./uml-cow.ts";

const KIB = 1024, MIB = 1024 * KIB;

/** A sound image of some format, to be damaged. `beside`: the further files that it names. */
export interface Seed { readonly name: string; readonly format: string; readonly bytes: Uint8Array; readonly beside?: ReadonlyMap<string, Uint8Array> }

/** Options that make an image of another kind: `-o` of convert. Of every format the defaults are made, too. */
const KINDS: Readonly<Record<string, readonly string[]>> = {
  qcow2: ["extended_l2=on,cluster_size=16k", "compat=0.10", "cluster_size=512", "cluster_size=2M,refcount_bits=1", "compression_type=zstd", "backing_file=plain.raw,backing_fmt=raw"],
  qcow: ["backing_file=plain.raw,backing_fmt=raw"], qed: ["cluster_size=4k,table_size=2", "backing_file=plain.raw,backing_fmt=raw"], cow: ["backing_file=plain.raw,backing_fmt=raw"],
  vdi: ["static=on"], vpc: ["subformat=fixed", "force_size=on"], vmdk: ["zeroed_grain=on", "subformat=streamOptimized", "subformat=twoGbMaxExtentSparse", "subformat=monolithicFlat"], parallels: ["cluster_size=4k"], vhdx: ["subformat=fixed", "block_size=1M"],
};

function* fixtures(random: Random): Iterable<Seed> {
  const text = random.text(64 * KIB), chunk = (type: "raw" | "zlib" | "bzip2", sectors: number) => ({ type, sectors, data: text.subarray(0, sectors * 512) });
  const partitions = [[chunk("raw", 3), chunk("zlib", 64)], [{ type: "zero", sectors: 4000 } as const, chunk("bzip2", 64)]];
  yield { name: "dmg", format: "dmg", bytes: makeDmg({ partitions }) };
  yield { name: "dmg with a resource fork", format: "dmg", bytes: makeDmg({ partitions, tables: "resources" }) };
  yield { name: "cloop", format: "cloop", bytes: makeCloop(4096, Array.from({ length: 16 }, (_, i) => text.subarray(i * 4096, (i + 1) * 4096))) };
  const sectors = new Map([[0, text.subarray(0, 512)], [5, text.subarray(512, 1024)]]);
  for (const version of [1, 2] as const) yield { name: `bochs ${version}`, format: "bochs", bytes: makeBochs({ version, size: 3 * MIB, extentSize: 16 * KIB, extents: [{ index: 3, sectors }, { index: 0, sectors }] }) };
  const bitmap = new Uint8Array(16).fill(0x55);
  for (const version of [1, 2, 3] as const) yield { name: `cow of user-mode Linux ${version}`, format: "cow", bytes: makeUmlCow({ version, size: text.length, backing: "plain.raw", mtime: 1, bitmap, data: text }) };
}

/** Sound images of every format, made in the current folder, which is left as it was. */
export async function makeSeeds(): Promise<Seed[]> {
  const random = new Random(86), seeds = [...fixtures(random)], there = new Set(readdirSync(".")), plain = Buffer.alloc(3 * MIB + 512);
  for (const at of [0, 70_000, MIB, 3 * MIB - 5000]) plain.set(random.text(3000), at);
  writeFileSync("plain.raw", plain);
  for (const { name: format, creation } of FORMATS) {
    for (const options of creation === undefined ? [] : ["", ...(KINDS[format] ?? [])]) {
      const { status, stderr } = await disk86("convert", "-O", format, ...(options === "" ? [] : ["-o", options]), "plain.raw", "seed");
      if (status !== 0) throw new Error(`no seed of ${format} with ${options}: ${stderr}`);
      const beside = readdirSync(".").filter((name) => name.startsWith("seed-")).map((name) => [name, new Uint8Array(readFileSync(name))] as const);
      seeds.push({ name: `${format} ${options}`, format, bytes: new Uint8Array(readFileSync("seed")), beside: new Map(beside) });
      for (const [name] of beside) rmSync(name);
    }
  }
  for (const name of readdirSync(".")) if (!there.has(name)) rmSync(name);
  return seeds;
}

const SURPRISES = [0n, 1n, 2n, 3n, 255n, 511n, 512n, 513n, 4096n, 0xffffn, 0x10000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_fffen, 0xffff_ffffn, 0x1_0000_0000n, 0xffff_ffff_fe00n, 1n << 40n, (1n << 53n) - 512n, 1n << 53n, 1n << 62n, 1n << 63n, (1n << 63n) - 512n, (1n << 64n) - 1n];

/** A damaged image: its bytes, and how long the file claims to be. Behind the bytes it reads as zeros. */
export interface Hostile { readonly bytes: Uint8Array; readonly size: number }

/** One to five changes where they hurt: in what is not zero at the beginning, at the end and in between. */
export function damaged(random: Random, seed: Uint8Array): Hostile {
  const bytes = new Uint8Array(seed), view = new DataView(bytes.buffer);
  for (let n = 1 + random.int(5); n > 0; n--) {
    const at = anyPlace(random, bytes), how = random.float(), little = random.chance(0.5);
    if (how < 0.25 || at + 8 > bytes.length) bytes[at] = random.int(256);
    else if (how < 0.45) view.setUint32(at, Number(BigInt.asUintN(32, random.pick(SURPRISES))), little);
    else if (how < 0.7) view.setBigUint64(at, random.pick(SURPRISES), little);
    else if (how < 0.85) view.setBigUint64(at, BigInt(random.int(bytes.length)), little);
    else if (how < 0.95) bytes.copyWithin(at, random.int(bytes.length), random.int(bytes.length));
    else bytes.fill(random.pick([0, 0xff]), at, at + random.int(5000));
  }
  if (random.chance(0.1)) return { bytes: bytes.subarray(0, random.int(bytes.length)), size: bytes.length };
  if (random.chance(0.1)) return { bytes, size: bytes.length + random.int(5000) };
  // A file with holes is as long as it likes: that no length fits it is no defence.
  if (random.chance(0.3)) return { bytes, size: random.pick([2 ** 30, 2 ** 33, 2 ** 40, 2 ** 43]) };
  return { bytes, size: bytes.length };
}

/** Mostly at a multiple of four, mostly where there is something. */
function anyPlace(random: Random, bytes: Uint8Array): number {
  for (let tries = 0; ; tries++) {
    const zone = random.float(), last = bytes.length;
    const any = zone < 0.4 ? random.int(Math.min(last, 600)) : zone < 0.55 ? last - 1 - random.int(Math.min(last, 1100)) : zone < 0.75 ? random.int(Math.min(last, 16 * KIB)) : random.int(last);
    const at = random.chance(0.8) ? any - (any % 4) : any;
    if (bytes[at] !== 0 || tries >= 8 || random.chance(0.1)) return at;
  }
}

/** A damaged image as a file. Whoever writes to it, or reads more at once than any image needs, is caught. */
export class HostileStorage extends MemoryStorage {
  /** The most that was read at once, in bytes. */
  largest = 0;

  constructor(readonly hostile: Hostile, name: string) {
    super(hostile.bytes, name);
  }

  override get size(): number { return this.hostile.size; }

  override read(offset: number, into: Uint8Array): void {
    if (!(Number.isSafeInteger(offset) && offset >= 0)) throw new Error(`a read at ${offset}`);
    this.largest = Math.max(this.largest, into.length);
    const from = Math.min(offset, this.hostile.bytes.length), part = this.hostile.bytes.subarray(from, from + into.length);
    into.set(part);
    into.fill(0, part.length);
  }

  override write(): void { throw new Error("a write to an image that is only read"); }
  override zero(): void { throw new Error("a write to an image that is only read"); }
  override discard(): void { throw new Error("a write to an image that is only read"); }
  override truncate(): void { throw new Error("a write to an image that is only read"); }
}
