import { describe, expect, test } from "vitest";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { checkQcow2, type Qcow2CheckOptions } from "../../disk/formats/qcow2/check.ts";
import type { CheckResult } from "../../disk/formats/check.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run } from "../../disk/task.ts";
import { crashStates } from "../crash/states.ts";
import { PowerCutStorage } from "../support/powercut.ts";
import { Random } from "../support/random.ts";

const SIZE = 96 * 1024, CLUSTER = 512, COPIED = 0x80;

function checkNow(file: Storage, options?: Qcow2CheckOptions): CheckResult {
  const result = run(checkQcow2(file, { maxFindings: 1e6, ...options }));
  if (result instanceof Promise) throw new Error("expected a synchronous check");
  return result;
}

function diskNow(bytes: Uint8Array, readOnly: boolean): Extract<ReturnType<typeof open>, { chain: unknown }> {
  const disk = open(new MemoryStorage(bytes), { readOnly });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

/** An image in small clusters with some data, and what the guest reads. */
function makeImage(random: Random): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createQcow2(file, { size: SIZE, clusterSize: CLUSTER }));
  const disk = open(file);
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  for (let i = 0; i < 12; i++) {
    const offset = random.int(SIZE - 4096);
    void disk.write(offset, random.bytes(1 + random.int(4096)));
  }
  void disk.close();
  return { bytes: file.bytes.slice(), contents: read(file.bytes) };
}

function read(bytes: Uint8Array): Uint8Array {
  const into = new Uint8Array(SIZE);
  void diskNow(bytes.slice(), true).read(0, into);
  return into;
}

/** Clusters that may be given away although somebody needs them: a repair must never add one, whenever it is cut short. */
function endangered(bytes: Uint8Array): number {
  return checkNow(new MemoryStorage(bytes.slice())).findings.filter(({ message }) => message.startsWith("ERROR cluster")).length;
}

class Tables {
  readonly view: DataView;
  constructor(readonly bytes: Uint8Array) { this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length); }
  get l1(): number { return this.view.getUint32(44); }
  get refcountTable(): number { return this.view.getUint32(52); }
  get block(): number { return this.view.getUint32(this.refcountTable + 4); }
  /** The entries in use of the first L2 table. */
  get entries(): number[] {
    const table = this.view.getUint32(this.l1 + 4);
    return Array.from({ length: CLUSTER / 8 }, (_, i) => table + i * 8).filter((at) => this.view.getUint32(at + 4) !== 0);
  }
}

const clusters = ({ bytes }: Tables): number => bytes.length / CLUSTER;

const DAMAGES: readonly { readonly name: string; apply(tables: Tables, random: Random): void }[] = [
  { name: "refcounts at random", apply: (tables, random) => { for (let i = 0; i < 6; i++) tables.view.setUint16(tables.block + 2 * random.int(clusters(tables)), random.int(3)); } },
  { name: "no refcounts, as after a crash with lazy refcounts", apply: (tables) => { tables.bytes.fill(0, tables.block + 8, tables.block + CLUSTER); tables.bytes[79] = 1; } },
  { name: "COPIED flags", apply: (tables, random) => { for (let i = 0; i < 3; i++) { const at = random.pick(tables.entries); tables.bytes[at] = (tables.bytes[at] ?? 0) ^ COPIED; } } },
  { name: "no refcount block", apply: (tables) => { tables.view.setUint32(tables.refcountTable + 4, 0); } },
  { name: "a refcount block that is data", apply: (tables, random) => { tables.view.setUint32(tables.refcountTable + 4, tables.view.getUint32(random.pick(tables.entries) + 4)); } },
  { name: "no refcount table", apply: (tables) => { tables.view.setUint32(48, 1); tables.bytes[79] = 2; } },
  { name: "leaks", apply: (tables, random) => {
    for (let i = 0; i < 4; i++) tables.view.setUint16(tables.block + 2 * (tables.view.getUint32(random.pick(tables.entries) + 4) / CLUSTER), 7);
    tables.view.setUint16(tables.block + 2 * (clusters(tables) - 1), 3);
  } },
];

describe("a qcow2 repair that is cut short", () => {
  test.each(DAMAGES)("leaves what a second one mends: $name", (damage) => {
    const random = new Random(7);
    let states = 0;
    for (let round = 0; round < 3; round++) {
      const { bytes, contents } = makeImage(random);
      damage.apply(new Tables(bytes), random);
      const cut = new PowerCutStorage(bytes), before = endangered(bytes);
      checkNow(cut, { repair: "all" });
      expect(checkNow(cut)).toMatchObject({ leaks: 0, corruptions: 0, checkErrors: 0 });
      for (const state of crashStates(cut)) {
        states++;
        const again = new MemoryStorage(state.bytes.slice());
        const { leaks, corruptions, checkErrors } = checkNow(again, { repair: "all" });
        const same = Buffer.compare(read(again.bytes), contents) === 0 && Buffer.compare(read(state.bytes), contents) === 0;
        const { text } = state;
        expect({ text, leaks, corruptions, checkErrors, same, worse: endangered(state.bytes) > before }).toEqual({ text, leaks: 0, corruptions: 0, checkErrors: 0, same: true, worse: false });
      }
    }
    expect(states).toBeGreaterThan(5);
  });

  test("would be noticed: the header must not point at refcounts that may not be there", () => {
    const { bytes } = makeImage(new Random(8)), tables = new Tables(bytes), data = tables.entries[0] ?? 0;
    // Twice the same block: all is counted, but the structure must be made anew.
    tables.view.setUint32(tables.refcountTable + 12, tables.block);
    expect(data).toBeGreaterThan(0);
    const cut = new PowerCutStorage(bytes, "file", new Set(["rebuilt refcounts before the header that points at them"])), before = endangered(bytes);
    checkNow(cut, { repair: "all" });
    expect([...crashStates(cut)].some((state) => endangered(state.bytes) > before)).toBe(true);
  });
});
