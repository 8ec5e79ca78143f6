import { createVmdk, type VmdkCreateOptions } from "../../disk/formats/vmdk/create.ts";
import type { NewFiles } from "../../disk/formats/creation.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { PowerCutStorage } from "../support/powercut.ts";
import { buildCowd, buildHosted, descriptorText, type Grain } from "../support/vmdk-build.ts";
import { brokenVmdk, contentIdOf } from "../support/vmdk-inspect.ts";
import { scattered } from "./blockScenarios.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, SIZE = 96 * KIB;

/** An image with small grains, the first ten of which have data. */
function made(build: (grains: ReadonlyMap<number, Grain>) => Uint8Array, size = SIZE): () => { bytes: Uint8Array; contents: Uint8Array } {
  return () => {
    const contents = new Uint8Array(size), data = new Random(3).bytes(5 * KIB);
    contents.set(data);
    const bytes = build(new Map(Array.from({ length: 10 }, (_, i) => [i, data.subarray(i * 512, (i + 1) * 512)])));
    return { bytes, contents };
  };
}

function hosted(more: Partial<Parameters<typeof buildHosted>[0]>, sectors = SIZE / 512): (grains: ReadonlyMap<number, Grain>) => Uint8Array {
  return (grains) => buildHosted({ sectors, grain: 1, grains, perTable: 128, descriptor: descriptorText("monolithicSparse", [`RW ${sectors} SPARSE "top"`]), ...more });
}

/** Before anything else changes there is a new content ID, by which children know. */
function renewed(state: Uint8Array, initial: Uint8Array): string | undefined {
  if (contentIdOf(state, 512) !== contentIdOf(initial, 512)) return undefined;
  return Buffer.compare(state, initial) === 0 ? undefined : "changed, with the content ID as before";
}

const format = "vmdk";
const nothing: NewFiles = { name: "top.vmdk", create: () => { throw new Error("one file is enough"); }, open: () => { throw new Error("no parent"); } };

/** An extent of its own, and the descriptor file that names it: each in turn is what loses its power. */
function creation(name: string, options: VmdkCreateOptions, judge: (bytes: Uint8Array, ended: boolean) => string | undefined): Scenario {
  return taskScenario(name, () => new Random(5).bytes(20 * KIB), (file) => createVmdk(file, options, nothing), judge);
}

function emptyOrNone(bytes: Uint8Array, ended: boolean): string | undefined {
  if (Buffer.from(bytes.subarray(0, 4)).toString("latin1") !== "KDMV") return ended ? "the image is not there" : undefined;
  const contents = new Uint8Array(300 * KIB);
  void openNow(new MemoryStorage(bytes), undefined, { format }).read(0, contents);
  return contents.every((byte) => byte === 0) ? brokenVmdk(bytes) : "a new disk that is not empty";
}

/** What was in the file is gone, but a power cut may bring it back. */
function emptied(cut: PowerCutStorage): PowerCutStorage {
  cut.truncate(0);
  return cut;
}

/** The files of a new image of several: `cut` is the one that loses its power, of the others everything is there. */
const several: Scenario[] = [
  { name: "the descriptor of a new VMDK", make: (cut: PowerCutStorage) => createVmdk(cut, { size: 300 * KIB, subformat: "monolithicFlat" }, { ...nothing, create: () => new MemoryStorage() }), sound: (bytes: Uint8Array) => Buffer.from(bytes).toString("latin1").includes("ddb.toolsVersion") },
  { name: "a flat extent of a new VMDK", make: (cut: PowerCutStorage) => createVmdk(new MemoryStorage(), { size: 300 * KIB, subformat: "monolithicFlat" }, { ...nothing, create: () => emptied(cut) }), sound: (bytes: Uint8Array) => bytes.length === 300 * KIB },
].map(({ name, make, sound }) => ({
  name, format,
  start(ignored) {
    const cut = new PowerCutStorage(new Random(5).bytes(20 * KIB), "file", ignored);
    void run(make(cut));
    return { cut, judge: ({ bytes, at }) => (at >= cut.log.length && !sound(bytes) ? "not there, or not whole" : undefined) };
  },
}));

export const VMDK: readonly Scenario[] = [
  guestScenario({ name: "a hosted sparse VMDK", format, image: made(hosted({})), work: scattered, demand: renewed }),
  guestScenario({ name: "a VMDK whose grain tables are made when they are needed", format, image: made(hosted({ sparseTables: true })), work: scattered, demand: renewed }),
  guestScenario({ name: "a VMDK with grains of zeros", format, image: made(hosted({ sparseTables: "zero", zeroGrain: true, version: 2 })), work: scattered, demand: renewed }),
  guestScenario({ name: "a COWD", format, image: made((grains) => buildCowd({ sectors: SIZE / 512, grain: 1, grains })), work: scattered }),
  guestScenario({
    name: "a VMDK whose grain tables do not fit the cache", format, options: { tableCache: 1 }, image: made(hosted({ redundant: false }, 1024), 512 * KIB),
    work: (guest) => {
      for (let i = 0; i < 5; i++) void guest.fill(((i * 3) % 16) * 32 * KIB + 100, 900, i + 1);
      void guest.flush();
    },
  }),
  creation("a new VMDK takes a file's place", { size: 300 * KIB }, emptyOrNone),
  creation("a new streamOptimized VMDK takes a file's place", { size: 300 * KIB, subformat: "streamOptimized" }, emptyOrNone),
  ...several,
];
