import { expect, test } from "vitest";
import { Disk } from "../../disk/disk.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { createQed } from "../../disk/formats/qed/create.ts";
import type { Image } from "../../disk/image.ts";
import { openDisk } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run, type Task } from "../../disk/task.ts";
import { commitDisk } from "../../disk/tools/commit.ts";
import { Rate } from "../../disk/tools/rate.ts";
import { keepContents } from "../../disk/tools/rebase.ts";
import { Random } from "../support/generator.ts";
import { apply, PowerCutStorage } from "../support/powercut.ts";
import { withSeed } from "../support/random.ts";
import { openNow } from "./scenario.ts";

/*
 * A commit changes two files, and a power cut hits both at once. The log of both, in one order, tells what may then
 * be left of each: all that was flushed, and any part of the rest.
 */

const KIB = 1024, SIZE = 200 * KIB, METER = { update() {}, end() {} };
const FORMATS: Readonly<Record<string, (file: Storage, size: number, backing: string | undefined) => Task>> = {
  qcow2: (file, size, backingFile) => createQcow2(file, { size, clusterSize: 1024, backingFile, backingFormat: backingFile && "x" }),
  qed: (file, size, backingFile) => createQed(file, { size, clusterSize: 4096, tableSize: 1, backingFile, backingFormat: undefined }),
  raw: function* raw(file, size) { yield { op: "truncate", on: file, size }; },
};

/** What a log may leave of a file when the power goes before entry `end`: `keep` decides about each change not flushed by then. */
function leftOf({ initial, log }: PowerCutStorage, end: number, keep: () => boolean): Uint8Array {
  const state = new MemoryStorage(initial.slice()), before = log.slice(0, end), flushed = before.findLastIndex(({ op }) => op === "flush");
  for (const [index, entry] of before.entries()) if (entry.op !== "flush" && (index < flushed || keep())) apply(entry, state);
  return state.bytes;
}

/** Notes, at each change or flush of either file, how long the two logs are. */
function watched(files: readonly PowerCutStorage[]): { readonly cuts: number[][] } {
  const cuts: number[][] = [];
  for (const file of files) {
    const push = file.log.push.bind(file.log);
    file.log.push = (...entries) => {
      cuts.push(files.map(({ log }) => log.length));
      return push(...entries);
    };
  }
  return { cuts };
}

function opened(storage: MemoryStorage, format: string, base?: { readonly storage: MemoryStorage; readonly format: string }): Disk {
  const disk = run(openDisk(storage, { format, trustProbe: true, backing: base === undefined ? false : () => ({ storage: base.storage, format: base.format }) }));
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

function contentsOf(disk: Disk): Uint8Array {
  const bytes = new Uint8Array(disk.size);
  void disk.read(0, bytes);
  return bytes;
}

/** A base with data, and an overlay larger than it with data, zeros and holes. */
function twoFiles(random: Random, above: string, below: string): { top: Uint8Array; base: Uint8Array; contents: Uint8Array } {
  const base = new MemoryStorage(new Uint8Array(0), "base"), top = new MemoryStorage(new Uint8Array(0), "top");
  void run((FORMATS[below] as (typeof FORMATS)[string])(base, SIZE / 2, undefined));
  const disk = opened(base, below);
  for (let i = 0; i < 5; i++) void disk.write(random.int(SIZE / 2 - 5000), random.bytes(5000));
  void disk.close();
  void run((FORMATS[above] as (typeof FORMATS)[string])(top, SIZE, "base"));
  const overlay = opened(top, above, { storage: base, format: below });
  for (let i = 0; i < 6; i++) void overlay.write(random.int(SIZE - 9000), random.bytes(9000));
  void overlay.zero(8 * KIB, 12 * KIB);
  const contents = contentsOf(overlay);
  void overlay.close();
  return { top: top.bytes.slice(), base: base.bytes.slice(), contents };
}

/** The first state of both files in which the overlay reads other than it should. */
function firstLoss(random: Random, files: readonly [PowerCutStorage, PowerCutStorage], cuts: readonly number[][], reads: (top: MemoryStorage, base: MemoryStorage) => Uint8Array, wanted: Uint8Array): string | undefined {
  const choices: (() => boolean)[] = [() => true, () => false, () => random.chance(0.5), () => random.chance(0.2)];
  for (const [topEnd = 0, baseEnd = 0] of cuts) {
    for (const keepTop of choices) {
      for (const keepBase of choices) {
        const top = leftOf(files[0], topEnd, keepTop), base = leftOf(files[1], baseEnd, keepBase);
        if (Buffer.compare(reads(new MemoryStorage(top, "top"), new MemoryStorage(base, "base")), wanted) !== 0) return `cut before change ${topEnd} of the overlay, ${baseEnd} of the base`;
      }
    }
  }
  return undefined;
}

const PAIRS = [["qcow2", "qcow2"], ["qcow2", "raw"], ["qed", "raw"], ["qed", "qcow2"]] as const;

test.each(PAIRS)("a power cut while %s is committed into %s: the overlay reads as before", (above, below) => withSeed((random) => {
  const { top, base, contents } = twoFiles(random, above, below);
  const files = [new PowerCutStorage(top, "top"), new PowerCutStorage(base, "base")] as const, { cuts } = watched(files);
  const [overlay, under] = [opened(files[0], above), opened(files[1], below)];
  void run(commitDisk(new Disk(overlay.chain.slice(0, 1) as unknown as [Image]), under, true, new Rate(0), METER));
  void under.close();
  void overlay.close();
  cuts.push(files.map(({ log }) => log.length));
  const reads = (one: MemoryStorage, other: MemoryStorage): Uint8Array => contentsOf(opened(one, above, { storage: other, format: below }));
  expect(firstLoss(random, files, cuts, reads, contents)).toBeUndefined();
  // It went into the base, and the overlay is empty.
  const after = opened(new MemoryStorage(files[1].bytes.slice()), below);
  expect(Buffer.compare(contentsOf(after).subarray(0, SIZE), contents)).toBe(0);
  const emptied = opened(new MemoryStorage(files[0].bytes.slice()), above);
  expect(contentsOf(emptied).every((byte) => byte === 0)).toBe(true);
}));

test.each(["qcow2", "qed"])("a power cut while %s is rebased: on the base that it names it reads as before", (above) => withSeed((random) => {
  const { top, base, contents } = twoFiles(random, above, "raw"), other = random.bytes(SIZE + 3 * KIB);
  const files = [new PowerCutStorage(top, "top"), new PowerCutStorage(base, "base")] as const, { cuts } = watched(files);
  const overlay = opened(files[0], above, { storage: files[1], format: "raw" }), next = opened(new MemoryStorage(other, "other"), "raw");
  void run((function* rebase(): Task {
    yield* keepContents(overlay, next, METER);
    yield* overlay.setBacking({ file: "other", format: "raw" });
  })());
  void overlay.close();
  cuts.push(files.map(({ log }) => log.length));
  const reads = (one: MemoryStorage): Uint8Array => {
    const disk = run(openDisk(one, { format: above, trustProbe: true, backing: (named) => ({ storage: new MemoryStorage(named?.file === "other" ? other : base, "base"), format: "raw" }) }));
    return disk instanceof Promise ? new Uint8Array(0) : contentsOf(disk);
  };
  expect(firstLoss(random, files, cuts, reads, contents)).toBeUndefined();
  expect(openNow(new MemoryStorage(files[0].bytes.slice()), other, { format: above, backing: false }).chain[0].backing?.file).toBe("other");
}));
