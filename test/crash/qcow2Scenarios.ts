import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { Random } from "../support/generator.ts";
import { runTool } from "../support/tools.ts";
import { AMENDED } from "./amendScenarios.ts";
import { BITMAPS } from "./bitmapScenarios.ts";
import { guestScenario, made, openNow, type Scenario } from "./scenario.ts";
import type { Guest } from "./guest.ts";

const C = 512, KIB = 1024;
const SMALL = { size: 96 * KIB, clusterSize: C };
/** The smallest clusters that have subclusters: of one sector. */
const EXTENDED = { size: 48 * KIB, clusterSize: 16 * KIB, extendedL2: true };
const random = new Random(86);
const base = (length: number): Uint8Array => random.bytes(length);
const marked = (length: number, mark: number): Uint8Array => Uint8Array.from({ length }, (_, i) => ((mark * 37 + i * 11) % 255) + 1);

/** An image that qemu-img and qemu-io make, step by step, in `folder`; commands begin with the program's name. */
export function qemuMade(folder: string, commands: readonly (readonly string[])[], backing?: Uint8Array): { bytes: Uint8Array; contents: Uint8Array } {
  if (backing !== undefined) writeFileSync(join(folder, "base"), backing);
  for (const [tool = "", ...args] of commands) runTool(tool, args.map((arg) => arg.replaceAll("@", `${folder}/`)));
  const bytes = new Uint8Array(readFileSync(join(folder, "top"))), disk = openNow(new MemoryStorage(bytes.slice()), backing, { format: "qcow2" });
  const contents = new Uint8Array(disk.size);
  void disk.read(0, contents);
  return { bytes, contents };
}

/** Writes of all sorts, some in one cluster, some over many, with flushes between. */
function scribble(guest: Guest): void {
  void guest.fill(1000, 3000, 1);
  void guest.fill(0, 512, 2);
  void guest.flush();
  void guest.fill(200, 100, 3);
  void guest.fill(40 * KIB, 700, 4);
  void guest.flush();
  void guest.fill(70 * KIB, 2048, 5);
  void guest.fill(1300, 5, 6);
  void guest.flush();
}

/** Clusters are freed and taken again, for data and for tables. */
function churn(guest: Guest): void {
  for (let round = 0; round < 3; round++) {
    guest.discard(round * 4 * KIB, 4 * KIB);
    void guest.zero(34 * KIB + round * KIB, 2 * KIB);
    void guest.flush();
    void guest.fill((66 + round) * KIB, 2 * KIB, round + 20);
    void guest.fill(round * 4 * KIB + 512, 700, round + 30);
    void guest.flush();
    void guest.fill(34 * KIB + round * KIB + 100, 300, round + 40);
    void guest.flush();
  }
}

/** Compressed blocks that share host clusters, rewritten plainly and compressed, dropped, and taken again. */
function repack(guest: Guest): void {
  const block = guest.disk.chain[0].blockSize;
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 7; i++) void guest.pack(((i * 3 + round) % 24) * block, round * 10 + i + 1);
    if (round !== 1) void guest.flush();
    void guest.fill(3 * block + 100, block, round + 50);
    guest.discard((round + 6) * block, 2 * block);
    for (let i = 0; i < 3; i++) void guest.pack((i + round) * block, round * 10 + i + 70);
    void guest.flush();
  }
}

/** Subclusters of one cluster come and go, and whole clusters with them. */
function subclusters(guest: Guest): void {
  void guest.fill(20 * KIB + 100, 700, 1);
  void guest.fill(33 * KIB, 512, 2);
  void guest.flush();
  void guest.pack(32 * KIB, 8);
  void guest.fill(24 * KIB, 1024, 3);
  void guest.zero(20 * KIB, 512);
  guest.discard(0, 2 * KIB);
  void guest.flush();
  void guest.fill(KIB, 600, 4);
  void guest.zero(4 * KIB, 4 * KIB, true);
  void guest.flush();
  void guest.zero(30 * KIB, 4 * KIB);
  guest.discard(40 * KIB, 2 * KIB);
  void guest.pack(0, 9);
  void guest.flush();
  void guest.zero(0, 16 * KIB);
  void guest.fill(17 * KIB, 17 * KIB, 5);
  void guest.flush();
  void guest.fill(3 * KIB, 512, 6);
  guest.discard(16 * KIB, 17 * KIB);
  void guest.flush();
  void guest.truncate(25 * KIB);
  void guest.truncate(48 * KIB);
  void guest.fill(24 * KIB, 300, 7);
  void guest.flush();
}

const filled = (to: number) => (disk: { write(offset: number, from: Uint8Array): unknown }): void => { disk.write(0, marked(to, 9)); };

/** Scenarios that need nothing but this repository. */
export const OWN: readonly Scenario[] = [
  guestScenario({ name: "first writes into an empty image", image: () => made(SMALL), work: scribble }),
  guestScenario({ name: "version 2", image: () => made({ ...SMALL, version: 2 }, filled(5 * KIB)), work: (guest) => { scribble(guest); churn(guest); } }),
  guestScenario({ name: "1-bit refcounts", image: () => made({ ...SMALL, refcountBits: 1 }, filled(20 * KIB)), work: churn }),
  guestScenario({ name: "clusters of several sectors, torn", image: () => made({ size: 96 * KIB, clusterSize: 2048 }, filled(8 * KIB)), work: (guest) => { scribble(guest); churn(guest); } }),
  ...[["shorter", 50 * KIB + 300], ["longer", 200 * KIB]].map(([how, length]) => {
    const backing = base(Number(length));
    return guestScenario({
      name: `copy on write above a ${how} raw base`, backing, image: () => made({ ...SMALL, backingFile: "base", backingFormat: "raw" }, undefined, backing),
      work: (guest) => { scribble(guest); churn(guest); },
    });
  }),
  guestScenario({ name: "discard, zero and reuse of freed clusters", image: () => made(SMALL, filled(60 * KIB)), work: churn }),
  guestScenario({
    name: "zero clusters that keep their space are written again", image: () => made(SMALL, filled(20 * KIB)),
    work: (guest) => {
      void guest.zero(0, 8 * KIB, true);
      void guest.flush();
      void guest.fill(100, 2000, 1);
      void guest.zero(10 * KIB, KIB, true);
      void guest.fill(10 * KIB, 100, 2);
      void guest.flush();
      void guest.zero(0, 4 * KIB, true);
      void guest.fill(600, 20, 3);
      void guest.zero(0, 2 * KIB);
      void guest.flush();
    },
  }),
  guestScenario({
    name: "tables that do not fit the cache are written back amid the work", image: () => made({ size: 512 * KIB, clusterSize: C }), options: { tableCache: 1 },
    work: (guest) => {
      for (let i = 0; i < 12; i++) {
        void guest.fill(((i * 7) % 16) * 32 * KIB + 100, 900, i + 1);
        if (i % 3 === 2) guest.discard((((i - 1) * 7) % 16) * 32 * KIB, KIB);
        if (i % 5 === 4) void guest.flush();
      }
      void guest.flush();
    },
  }),
  guestScenario({
    name: "new refcount blocks", image: () => made({ size: 128 * KIB, clusterSize: C, refcountBits: 64 }, filled(20 * KIB)),
    work: (guest) => {
      void guest.fill(20 * KIB, 12 * KIB, 9);
      void guest.flush();
      for (let i = 0; i < 6; i++) {
        void guest.fill((24 + i * 13) * KIB, 12 * KIB, i + 1);
        if (i === 3) void guest.zero(0, 8 * KIB);
        void guest.flush();
      }
    },
  }),
  guestScenario({
    name: "the refcount table grows", image: () => made({ size: 2432 * KIB, clusterSize: C, refcountBits: 64 }, filled(1952 * KIB)),
    work: (guest) => {
      void guest.fill(1952 * KIB, 29 * KIB, 1);
      void guest.fill(1984 * KIB, 700, 2);
      void guest.flush();
      // Cluster by cluster into tables that are there: data takes the old refcount table's place at once.
      for (let i = 0; i < 12; i++) void guest.fill((1986 + i) * KIB, 512, i + 3);
      void guest.flush();
      void guest.fill(2310 * KIB, 3000, 4);
      void guest.flush();
    },
  }),
  guestScenario({
    name: "the L1 grows, and its old place is reused", image: () => made({ size: 32 * KIB, clusterSize: C }, filled(20 * KIB)),
    work: (guest) => {
      void guest.fill(512, 600, 1);
      void guest.truncate(100 * KIB);
      void guest.fill(90 * KIB, 3000, 2);
      void guest.flush();
      void guest.truncate(4096 * KIB);
      void guest.fill(4095 * KIB, 1000, 3);
      void guest.fill(5000, 10, 4);
      void guest.flush();
    },
  }),
  ...[512, 4096].flatMap((clusterSize) => [undefined, base(64 * KIB)].map((backing) => guestScenario({
    name: `shrinks and grows, clusters of ${clusterSize}${backing ? ", above a longer base" : ""}`, ...(backing ? { backing } : {}),
    image: () => made({ size: 40 * KIB, clusterSize, ...(backing ? { backingFile: "base", backingFormat: "raw" } : {}) }, filled(30 * KIB), backing),
    work: (guest) => {
      void guest.truncate(20 * KIB + 512);
      void guest.flush();
      void guest.fill(19 * KIB, 1500, 1);
      void guest.truncate(10 * KIB);
      void guest.truncate(50 * KIB);
      void guest.fill(30 * KIB, 700, 2);
      void guest.flush();
      void guest.truncate(300 * KIB);
      void guest.flush();
    },
  }))),
  guestScenario({
    name: "autoclear bits vouch for nothing once something was written",
    image: () => {
      const { bytes, contents } = made(SMALL, filled(4 * KIB));
      bytes[95] = 0x0c;
      return { bytes, contents };
    },
    work: scribble,
    demand: (state, initial) => (state[95] !== 0 && Buffer.compare(state, initial) !== 0 ? "changed under its autoclear bits" : undefined),
  }),
  ...[1, 2, 16].flatMap((refcountBits) => [512, 2048].map((clusterSize) => guestScenario({
    name: `compressed writes, clusters of ${clusterSize}, ${refcountBits}-bit refcounts`, image: () => made({ ...SMALL, clusterSize, refcountBits }, filled(10 * KIB)),
    work: (guest, reopen) => { repack(guest); reopen(); repack(guest); churn(guest); },
  }))),
  ...[undefined, base(60 * KIB)].map((backing) => guestScenario({
    name: `subclusters${backing ? " above a base" : ""}`, ...(backing ? { backing } : {}),
    image: () => made({ ...EXTENDED, ...(backing ? { backingFile: "base", backingFormat: "raw" } : {}) }, filled(10 * KIB), backing),
    work: subclusters,
  })),
  guestScenario({ name: "sessions follow each other", image: () => made(SMALL), work: (guest, reopen) => { scribble(guest); reopen(); churn(guest); reopen(); scribble(guest); } }),
  ...BITMAPS, ...AMENDED,
];

/** Scenarios on images that only QEMU can make. */
export function qemuScenarios(folder: string): readonly Scenario[] {
  const create = ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "@top", "96k"];
  const data = ["qemu-io", "-c", "write -q -P 65 0 20k", "-c", "write -q -P 66 34k 3k", "@top"];
  const snapshot = (name: string): string[] => ["qemu-img", "snapshot", "-c", name, "@top"];
  const compressible = Uint8Array.from({ length: 48 * KIB }, (_, i) => (i >> 6) & 0xff), backing = base(60 * KIB);
  return [
    guestScenario({ name: "copy on write of what a snapshot shares", image: () => qemuMade(folder, [create, data, snapshot("one")]), work: (guest) => { scribble(guest); churn(guest); } }),
    guestScenario({
      name: "copy on write of subclusters that a snapshot shares",
      image: () => qemuMade(folder, [
        ["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=16k,extended_l2=on", "@top", "48k"],
        ["qemu-io", "-c", "write -q -P 65 0 3k", "-c", "write -q -P 66 18k 3k", "-c", "write -q -z 40k 1k", "@top"], snapshot("one"),
      ]),
      work: subclusters,
    }),
    guestScenario({
      name: "two snapshots above a base, grown afterwards", backing,
      image: () => qemuMade(folder, [["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "-b", "base", "-F", "raw", "@top", "96k"], data, snapshot("one"), ["qemu-io", "-c", "write -q -P 67 2k 9k", "@top"], snapshot("two")], backing),
      work: (guest) => {
        scribble(guest);
        guest.discard(0, 6 * KIB);
        void guest.truncate(130 * KIB);
        void guest.fill(125 * KIB, 800, 7);
        void guest.flush();
        void guest.fill(4 * KIB, 800, 8);
        void guest.flush();
      },
    }),
    guestScenario({
      name: "compressed clusters, several in one host cluster, are rewritten and dropped",
      image: () => {
        writeFileSync(join(folder, "plain"), compressible);
        return qemuMade(folder, [["qemu-img", "convert", "-q", "-c", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k", "@plain", "@top"]]);
      },
      work: (guest) => {
        void guest.fill(5000, 300, 1);
        void guest.flush();
        guest.discard(8 * KIB, 12 * KIB);
        void guest.fill(30 * KIB, 5000, 2);
        void guest.flush();
        void guest.fill(9 * KIB, 100, 3);
        void guest.fill(100, 9000, 4);
        void guest.flush();
      },
    }),
    guestScenario({
      name: "preallocated metadata and zero clusters with space",
      image: () => qemuMade(folder, [["qemu-img", "create", "-q", "-f", "qcow2", "-o", "cluster_size=512,preallocation=metadata", "@top", "96k"], ["qemu-io", "-c", "write -q -z 0 16k", "-c", "write -q -z -u 20k 4k", "@top"]]),
      work: (guest) => { scribble(guest); churn(guest); },
    }),
  ];
}
