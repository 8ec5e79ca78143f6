import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import type { CheckResult } from "../../disk/formats/check.ts";
import { counts, ourCheck, qemuCheck, qemuIo, RawQcow2, tryGuestHash } from "../support/qcow2.ts";
import type { Random } from "../support/random.ts";
import { withSeed } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const COPIED = 1n << 63n, OFFSET = 0x00ff_ffff_ffff_fe00n;

/** A base image with two snapshots, compressed and zero clusters, and no errors. */
function makeBase(path: string, options: string, snapshots: boolean): void {
  runTool("qemu-img", ["create", "-f", "qcow2", "-o", options.replace("@", `${path}.data`), path, "4M"]);
  qemuIo(path, "write -P 1 0 300k", "write -P 2 1M 64k", "write -P 3 700k 33k");
  qemuIo(path, ...(options.includes("data_file") ? [] : ["write -c -P 5 2M 128k"]), "write -z 1M 64k", "write -P 4 3M 200k");
  if (!snapshots) return;
  runTool("qemu-img", ["snapshot", "-c", "one", path]);
  qemuIo(path, "write -P 8 100k 100k");
  runTool("qemu-img", ["snapshot", "-c", "two", path]);
  qemuIo(path, "write -P 9 150k 100k");
}

/** One kind of damage. `mapping`: it changes what the guest reads. */
interface Damage { readonly name: string; readonly mapping: boolean; apply(image: RawQcow2, random: Random): void }

const clusters = (image: RawQcow2): number => Math.ceil(image.bytes.length / image.clusterSize);
const anywhere = (image: RawQcow2, random: Random): bigint => BigInt(random.int(clusters(image) - 1) + 1) * BigInt(image.clusterSize);

function change(image: RawQcow2, entry: number, to: (value: bigint) => bigint): void {
  image.set(entry, to(image.u64(entry)));
}

/** Entries of plain clusters; an image has enough of them. */
const plain = (image: RawQcow2): number[] => image.l2Entries.filter((entry) => (image.u64(entry) & (1n << 62n)) === 0n);

const DAMAGES: Damage[] = [
  { name: "refcounts", mapping: false, apply: (image, random) => { for (let n = random.int(4); n >= 0; n--) image.setRefcount(random.int(clusters(image)), BigInt(random.int(4))); } },
  { name: "COPIED in L2", mapping: false, apply: (image, random) => { for (let n = random.int(3); n >= 0; n--) change(image, random.pick(plain(image)), (value) => value ^ COPIED); } },
  { name: "COPIED in L1", mapping: false, apply: (image, random) => { change(image, random.pick(image.l1Entries), (value) => value ^ COPIED); } },
  { name: "L2 entry elsewhere", mapping: true, apply: (image, random) => { change(image, random.pick(plain(image)), (value) => (value & ~OFFSET) | anywhere(image, random)); } },
  { name: "L2 entry cleared", mapping: true, apply: (image, random) => { change(image, random.pick(image.l2Entries), () => 0n); } },
  { name: "L2 entry behind the end", mapping: true, apply: (image, random) => { change(image, random.pick(plain(image)), (value) => value | (1n << BigInt(30 + random.int(25)))); } },
  { name: "L2 entry misaligned", mapping: true, apply: (image, random) => { change(image, random.pick(plain(image)), (value) => value ^ (image.clusterSize > 512 ? 512n : 0n)); } },
  { name: "zero entry misaligned", mapping: true, apply: (image, random) => { change(image, random.pick(plain(image)), (value) => value | (image.version > 2 ? 1n : 0n) | (image.clusterSize > 512 ? 512n : 0n)); } },
  { name: "reserved bits in L2", mapping: false, apply: (image, random) => { change(image, random.pick(plain(image)), (value) => value | random.pick([2n, 256n, 1n << 56n, 1n << 61n])); } },
  { name: "COPIED in compressed", mapping: false, apply: (image, random) => { change(image, random.pick(image.l2Entries.filter((entry) => (image.u64(entry) & (1n << 62n)) !== 0n)), (value) => value | COPIED); } },
  { name: "L1 entry cleared", mapping: true, apply: (image, random) => { change(image, random.pick(image.l1Entries), () => 0n); } },
  { name: "L1 entry elsewhere", mapping: true, apply: (image, random) => { change(image, random.pick(image.l1Entries), (value) => (value & ~OFFSET) | anywhere(image, random)); } },
  { name: "L1 entry behind the end", mapping: true, apply: (image, random) => { change(image, random.pick(image.l1Entries), (value) => value | (1n << 50n)); } },
  { name: "L1 entry misaligned", mapping: true, apply: (image, random) => { change(image, random.pick(image.l1Entries), (value) => value ^ (image.clusterSize > 512 ? 512n : 0n)); } },
  { name: "reserved bits in L1", mapping: false, apply: (image, random) => { change(image, random.pick(image.l1Entries), (value) => value | random.pick([1n, 2n, 1n << 56n, 1n << 61n])); } },
  { name: "no refcount block", mapping: false, apply: (image, random) => { change(image, random.pick(image.blockEntries), () => 0n); } },
  { name: "refcount block elsewhere", mapping: false, apply: (image, random) => { change(image, random.pick(image.blockEntries), () => anywhere(image, random)); } },
  { name: "refcount block twice", mapping: false, apply: (image, random) => { image.set(image.refcountTable + 8 * image.blockEntries.length, BigInt(random.pick(image.blocks))); } },
  { name: "refcount block misaligned", mapping: false, apply: (image, random) => { change(image, random.pick(image.blockEntries), (value) => value ^ (image.clusterSize > 512 ? 512n : 0n)); } },
  { name: "refcount block behind the end", mapping: false, apply: (image, random) => { change(image, random.pick(image.blockEntries), (value) => value + (1n << 32n)); } },
  { name: "reserved bits in the refcount table", mapping: false, apply: (image, random) => { change(image, random.pick(image.blockEntries), (value) => value | 8n); } },
  { name: "refcount table behind the end", mapping: false, apply: (image) => { image.set(48, image.u64(48) + (1n << 40n)); } },
  { name: "no refcount table", mapping: false, apply: (image) => { image.bytes.writeUInt32BE(0, 56); } },
  { name: "a refcount block of garbage", mapping: false, apply: (image, random) => { image.bytes.set(random.bytes(image.clusterSize), random.pick(image.blocks)); } },
];

/** An entry's bitmap of subclusters; the upper half says zeros. Plain entries have none. */
const bitmap = (entry: number): number => entry + 8;

/** What only extended L2 entries can have. */
const SUBCLUSTERS: Damage[] = [
  { name: "subclusters that are data and zeros at once", mapping: true, apply: (image, random) => { change(image, bitmap(random.pick(plain(image))), (value) => value | (value << 32n) | 1n | (1n << 32n)); } },
  { name: "other subclusters", mapping: true, apply: (image, random) => { for (let n = random.int(3); n >= 0; n--) change(image, bitmap(random.pick(image.l2Entries)), (value) => value ^ (1n << BigInt(random.int(64)))); } },
  { name: "subclusters without a cluster", mapping: true, apply: (image, random) => { change(image, random.pick(plain(image)), () => 0n); } },
  { name: "subclusters of a compressed cluster", mapping: true, apply: (image, random) => { image.set(bitmap(random.pick(image.l2Entries.filter((entry) => (image.u64(entry) & (1n << 62n)) !== 0n))), random.pick([1n, 1n << 40n])); } },
  { name: "misaligned, without data", mapping: true, apply: (image, random) => { const entry = random.pick(plain(image)); change(image, entry, (value) => value ^ 512n); image.set(bitmap(entry), random.pick([0n, 0xffff_ffff_0000_0000n])); } },
  { name: "the zero flag of a plain entry", mapping: false, apply: (image, random) => { change(image, random.pick(plain(image)), (value) => value | 1n); } },
];

/** QEMU's check does not mind the zero flag in version 2, though QEMU refuses to read such clusters. */
function zeroFlags({ findings }: CheckResult): number {
  return findings.filter(({ message }) => message.includes("which version 2 does not have")).length;
}

/** The first messages, what stays first: so that a failure tells what it is about. */
function saying({ findings }: CheckResult): string {
  return findings.toSorted((a, b) => Number(a.repaired) - Number(b.repaired)).slice(0, 8).map(({ message }) => message).join("\n");
}

const BASES = [
  { name: "64k", options: "compat=1.1", snapshots: true }, { name: "v2", options: "compat=0.10,cluster_size=4096", snapshots: true },
  { name: "512", options: "cluster_size=512,refcount_bits=8", snapshots: true }, { name: "4k-1bit", options: "cluster_size=4096,refcount_bits=1", snapshots: false },
  { name: "4k-4bit", options: "cluster_size=32k,refcount_bits=4", snapshots: false }, { name: "4k-64bit", options: "cluster_size=4096,refcount_bits=64", snapshots: true },
  { name: "extended", options: "extended_l2=on,cluster_size=16k", snapshots: true },
  { name: "external", options: "data_file=@", snapshots: false }, { name: "external-extended", options: "data_file=@,extended_l2=on,cluster_size=16k", snapshots: false },
];

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("qcow2 check of damaged images", () => {
  const folder = tempFolder(), baseOf = (name: string): string => join(folder, `${name}.qcow2`);
  const hashes = new Map<string, string[]>();
  const SNAPSHOTS = ["one", "two"];

  /** What the guest reads now and from each snapshot; `undefined` where QEMU cannot read it. */
  function contents(path: string, snapshots: boolean): (string | undefined)[] {
    return [undefined, ...(snapshots ? SNAPSHOTS : [])].map((snapshot) => tryGuestHash(path, snapshot));
  }

  beforeAll(() => {
    for (const { name, options, snapshots } of BASES) {
      makeBase(baseOf(name), options, snapshots);
      if (options.includes("data_file")) copyFileSync(`${baseOf(name)}.data`, `${baseOf(name)}.data.kept`);
      hashes.set(name, contents(baseOf(name), snapshots).map(String));
    }
  }, 60_000);

  const rounds = Number(process.env["ROUNDS"] ?? 2);
  const damages = (name: string): Damage[] => {
    const all = name.includes("extended") ? [...DAMAGES, ...SUBCLUSTERS] : DAMAGES;
    return name.startsWith("external") ? all.filter((damage) => !damage.name.includes("compressed")) : all;
  };
  const cases = BASES.flatMap((base) => damages(base.name).map((damage) => ({ base, damage, title: `${base.name}: ${damage.name}` })));

  test.each(cases)("counts as QEMU does, $title", async ({ base, damage }) => {
    const path = join(folder, "counted.qcow2");
    for (let round = 0; round < rounds; round++) {
      await withSeed(async (random) => {
        const image = new RawQcow2(baseOf(base.name));
        damage.apply(image, random);
        image.save(path);
        const ours = await ourCheck(path, undefined, { maxFindings: 1e6 }), qemu = qemuCheck(path), said = saying(ours);
        // Where QEMU cannot even check it, anything wrong will do.
        expect(ours.corruptions + ours.checkErrors + ours.leaks === 0 && qemu === undefined).toBe(false);
        const counted = { ...counts(ours), corruptions: ours.corruptions - zeroFlags(ours) };
        expect({ said, ...counted }).toEqual({ said, ...(qemu ?? counted) });
      });
    }
  });

  test("whatever cluster an L1 entry points at, what the snapshots have in it stays", async () => {
    const path = join(folder, "pointing.qcow2"), wanted = hashes.get("64k")?.slice(1), failed: number[] = [];
    for (let cluster = 1; cluster < clusters(new RawQcow2(baseOf("64k"))); cluster++) {
      const image = new RawQcow2(baseOf("64k"));
      change(image, image.l1Entries[0] ?? 0, (value) => (value & ~OFFSET) | BigInt(cluster * image.clusterSize));
      image.save(path);
      await ourCheck(path, "all");
      const now = SNAPSHOTS.map((snapshot) => tryGuestHash(path, snapshot));
      if (now.some((hash, i) => hash !== wanted?.[i])) failed.push(cluster);
    }
    expect(failed).toEqual([]);
  });

  test.each(cases)("repairs at least what QEMU does, $title", async ({ base, damage }) => {
    await withSeed(async (random) => {
      const path = join(folder, "ours.qcow2"), theirs = join(folder, "theirs.qcow2");
      const image = new RawQcow2(baseOf(base.name)), data = `${baseOf(base.name)}.data`;
      // All copies of an image share its data file, which the last one wrote.
      if (base.options.includes("data_file")) copyFileSync(`${data}.kept`, data);
      damage.apply(image, random);
      image.save(path);
      copyFileSync(path, theirs);
      const before = contents(path, base.snapshots);
      const repaired = await ourCheck(path, "all", { maxFindings: 1e6 }), left = qemuCheck(path), qemu = qemuCheck(theirs, "all");
      const said = saying(repaired);
      // QEMU's own repair may fail or give up; ours leaves no more than it does, and no leaks. But it writes to no table
      // that is misaligned or has more bad entries than good: that is somebody's data.
      const guess = damage.name === "L1 entry misaligned" || damage.name === "L1 entry elsewhere";
      const more = (left?.corruptions ?? Infinity) - ((guess ? undefined : qemu?.corruptions) ?? Infinity);
      expect({ said, more: more > 0, leaks: left?.leaks, errors: left?.checkErrors }).toEqual({ said, more: false, leaks: 0, errors: 0 });
      expect({ said, ...counts(repaired), corruptions: repaired.corruptions - zeroFlags(repaired) }).toEqual({ said, ...left, leaksFixed: repaired.leaksFixed, corruptionsFixed: repaired.corruptionsFixed });
      const bytes = readFileSync(path), again = await ourCheck(path, "all");
      expect([again.leaksFixed, again.corruptionsFixed, again.leaks, again.corruptions]).toEqual([0, 0, 0, repaired.corruptions]);
      expect(readFileSync(path).equals(bytes)).toBe(true);
      const after = contents(path, base.snapshots), wanted = damage.mapping ? before.map((hash, i) => hash ?? after[i]) : hashes.get(base.name);
      expect({ said, after }).toEqual({ said, after: wanted });
      // Nobody looks at refcounts behind the end of the file: as it grows there, garbage in them turns into leaks.
      // Neither does anybody look whether a data file's clusters are in their own places.
      if (left?.corruptions === 0 && !base.options.includes("data_file")) stillWorks(path, after.slice(1), damage.name === "a refcount block of garbage");
    });
  });

  /** A repaired image can be written, stays clean, and its snapshots keep what they had. */
  function stillWorks(path: string, snapshots: readonly (string | undefined)[], leaky: boolean): void {
    expect(tryTool("qemu-io", ["-f", "qcow2", "-c", "write -P 77 0 4M", path])).toMatchObject({ status: 0 });
    const clean = qemuCheck(path);
    expect([leaky ? 0 : clean?.leaks, clean?.corruptions, clean?.checkErrors]).toEqual([0, 0, 0]);
    expect(snapshots.map((hash, i) => hash ?? tryGuestHash(path, SNAPSHOTS[i]))).toEqual(snapshots.map((_, i) => tryGuestHash(path, SNAPSHOTS[i])));
  }
});
