import { formatExtensions, readExtensions } from "../../disk/formats/qcow2/extensions.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import type { Bitmaps } from "../../disk/image.ts";
import { openDisk } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run, wait, type Task } from "../../disk/task.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";
import { readBitmaps } from "../support/qcow2-bitmaps.ts";
import { guestScenario, made, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, SIZE = 96 * KIB;
const filled = (disk: { write(offset: number, from: Uint8Array): unknown }): void => { disk.write(0, new Uint8Array(9 * KIB).fill(9)); };

/** Runs `change` on the bitmaps of the image in `file`. */
function* changed(file: MemoryStorage, change: (bitmaps: Bitmaps) => Task | void): Task {
  const disk = yield* openDisk(file, { format: "qcow2", backing: false }), image = disk.chain[0];
  if (image.bitmaps === undefined) throw new Error("qcow2 has bitmaps");
  yield* change(yield* image.bitmaps()) ?? [];
  yield wait(() => disk.close());
}

function withBitmaps(clusterSize: number, backingFile?: string): { bytes: Uint8Array; contents: Uint8Array } {
  const { bytes, contents } = made({ size: SIZE, clusterSize, ...(backingFile === undefined ? {} : { backingFile, backingFormat: "raw" }) }, filled, new Uint8Array(0));
  const file = new MemoryStorage(bytes);
  void run(changed(file, (bitmaps) => {
    bitmaps.add("fine", 512);
    bitmaps.add("coarse", 4 * KIB);
    bitmaps.add("frozen", 512, false);
  }));
  return { bytes: file.bytes.slice(), contents };
}

/** A bitmap that is not in use tells of every difference from `initial`; the frozen one never says anything. */
function lies(state: Uint8Array, initial: Uint8Array): string | undefined {
  const now = contentsOf(state), before = contentsOf(initial);
  for (const { name, inUse, auto, granularity, dirty } of readBitmaps(state).bitmaps) {
    if (!auto && dirty.length > 0) return `${name} is not enabled and changed`;
    if (!auto || inUse) continue;
    const known = new Set(dirty);
    for (let at = 0; at < now.length; at += 512) {
      const same = Buffer.compare(now.subarray(at, at + 512), before.subarray(at, at + 512)) === 0;
      if (!same && !known.has(Math.floor(at / granularity))) return `${name} does not tell of the change at ${at}`;
    }
  }
  return undefined;
}

function contentsOf(bytes: Uint8Array): Uint8Array {
  const disk = openNow(new MemoryStorage(bytes.slice()), new Uint8Array(0), { format: "qcow2", readOnly: true }), contents = new Uint8Array(disk.size);
  void disk.read(0, contents);
  return contents;
}

/** Changes of the bitmaps themselves: after a cut there are those of before or those of after. */
function changes(name: string, image: () => Uint8Array, change: (bitmaps: Bitmaps) => Task | void, backingFile?: string): Scenario {
  const tell = (bytes: Uint8Array): string => JSON.stringify(readBitmaps(bytes).bitmaps.map((one) => [one.name, one.inUse, one.auto, one.granularity, one.dirty]));
  const before = image(), file = new MemoryStorage(before.slice());
  void run(changed(file, change));
  const olds = tell(before), news = tell(file.bytes);
  return taskScenario(name, () => before, (storage) => changed(storage as MemoryStorage, change), (bytes, ended) => {
    const { corruptions } = inspectQcow2(bytes), told = tell(bytes);
    if (corruptions.length > 0) return `corrupt: ${corruptions[0]}`;
    if (told !== news && (ended || told !== olds)) return `bitmaps ${told}`;
    const { chain: [{ backing }] } = openNow(new MemoryStorage(bytes), new Uint8Array(0), { format: "qcow2", readOnly: true });
    if (backing?.file !== backingFile) return `the backing file is ${String(backing?.file)}`;
    return Buffer.compare(contentsOf(bytes), contentsOf(before)) === 0 ? undefined : "the disk reads otherwise";
  });
}

/** An image whose header takes several sectors. */
function longHeader(clusterSize: number, backingFile: string): Uint8Array {
  const file = new MemoryStorage();
  void run(createQcow2(file, { size: SIZE, clusterSize, backingFile, backingFormat: "raw" }));
  if (readExtensions(file.bytes.subarray(112), 0, "").extensions.length < 2) throw new Error(`the header is short: ${formatExtensions([]).length}`);
  return file.bytes.slice();
}

const work = (size: number) => (guest: Parameters<Parameters<typeof guestScenario>[0]["work"]>[0], reopen: () => void): void => {
  void guest.fill(1000, 3000, 1);
  void guest.flush();
  guest.discard(0, 4 * KIB);
  void guest.zero(20 * KIB, 2 * KIB);
  reopen();
  void guest.fill(40 * KIB, 700, 2);
  void guest.flush();
  if (size !== SIZE) void guest.truncate(size);
  reopen();
  void guest.fill(10 * KIB, 700, 3);
};

export const BITMAPS: readonly Scenario[] = [
  ...[512, 4096].map((clusterSize) => guestScenario({ name: `bitmaps follow the guest, clusters of ${clusterSize}`, image: () => withBitmaps(clusterSize), work: work(SIZE), demand: lies })),
  guestScenario({ name: "bitmaps follow a disk that grows", image: () => withBitmaps(512), work: work(400 * KIB) }),
  changes("a first bitmap", () => made({ size: SIZE, clusterSize: 4096 }, filled).bytes, (bitmaps) => { bitmaps.add("first", 512); }),
  changes("bitmaps are added, removed and merged", () => withBitmaps(512).bytes, function* (bitmaps) {
    bitmaps.add("new", 1024);
    bitmaps.enable("coarse", false);
    yield* bitmaps.merge("new", bitmaps, "fine");
    bitmaps.remove("fine");
  }),
  changes("the last bitmap is removed", () => withBitmaps(4096).bytes, (bitmaps) => { for (const { name } of bitmaps.list()) bitmaps.remove(name); }),
  ...["base", "b".repeat(900)].map((name) => changes(`a first bitmap in a long header, with a backing file name of ${name.length}`, () => longHeader(4096, name), (bitmaps) => { bitmaps.add("first", 512); }, name)),
];
