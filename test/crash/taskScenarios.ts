import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { openDisk } from "../../disk/open.ts";
import { run, wait, type Task } from "../../disk/task.ts";
import type { Storage } from "../../disk/storage.ts";
import { Random } from "../support/generator.ts";
import { PowerCutStorage } from "../support/powercut.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";
import { guestScenario, made, openNow, type Scenario } from "./scenario.ts";

const KIB = 1024;

/** A task on a file. `judge` sees what a cut left, and whether the task had ended by then. */
export function taskScenario(name: string, image: () => Uint8Array, task: (file: Storage) => Task<unknown>, judge: (bytes: Uint8Array, ended: boolean) => string | undefined): Scenario {
  return {
    name,
    start(ignored) {
      const cut = new PowerCutStorage(image(), "file", ignored);
      void run(task(cut));
      const end = cut.log.length;
      return { cut, judge: ({ bytes, at }) => guarded(() => judge(bytes, at >= end)) };
    },
  };
}

function guarded(judge: () => string | undefined): string | undefined {
  try {
    return judge();
  } catch (error) {
    return `failed: ${String(error)}`;
  }
}

/** A file that held something else, and an image in its place: there is none, or all of it. */
const creation = [512, 4096].map((clusterSize) => taskScenario(
  `a new image takes a file's place, clusters of ${clusterSize}`, () => new Random(5).bytes(20 * KIB),
  (file) => createQcow2(file, { size: 300 * KIB, clusterSize, refcountBits: 64, backingFile: "base", backingFormat: "raw" }),
  (bytes, ended) => {
    const isImage = bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === 0x514649fb;
    if (!isImage) return ended ? "the image is not there" : undefined;
    const { corruptions, leaks } = inspectQcow2(bytes);
    if (corruptions.length + leaks > 0) return `a broken image: ${corruptions[0] ?? `${leaks} leaks`}`;
    const contents = new Uint8Array(300 * KIB), backing = new Random(6).bytes(300 * KIB);
    void openNow(new MemoryStorage(bytes), backing).read(0, contents);
    return Buffer.compare(contents, backing) === 0 ? undefined : "a new image that does not show its base";
  },
));

/** A data cluster that counts as free: when the guest drops it the contradiction is met, and the image is marked. */
const corruption = taskScenario("an image found corrupt stays marked", () => {
  const { bytes } = made({ size: 64 * KIB, clusterSize: 512 }, (disk) => { void disk.write(0, new Uint8Array(3000).fill(1)); });
  const view = new DataView(bytes.buffer), u48 = (at: number): number => view.getUint16(at + 2) * 2 ** 32 + view.getUint32(at + 4);
  const l2 = u48(u48(40)) % 2 ** 48, cluster = u48(l2) / 512, block = u48(u48(48));
  view.setUint16(block + cluster * 2, 0);
  return bytes;
}, function* (file) {
  const disk = yield* openDisk(file, { format: "qcow2" });
  try {
    yield wait(() => disk.discard(0, 512));
    yield wait(() => disk.flush());
  } catch {
    return;
  }
  throw new Error("the contradiction was not met");
}, (bytes, ended) => (ended && ((bytes[79] ?? 0) & 2) === 0 ? "the corrupt bit is not set" : undefined));

const raw = guestScenario({
  name: "raw", format: "raw", image: () => { const bytes = new Random(7).bytes(20 * KIB); return { bytes, contents: bytes }; },
  work: (guest) => {
    void guest.fill(100, 2000, 1);
    void guest.flush();
    void guest.zero(3000, 5000);
    void guest.fill(4000, 10, 2);
    void guest.flush();
    void guest.truncate(30 * KIB);
    void guest.flush();
    void guest.fill(25 * KIB, 600, 3);
    void guest.flush();
    void guest.truncate(5 * KIB);
    guest.discard(0, KIB);
    void guest.flush();
  },
});

export const TASKS: readonly Scenario[] = [...creation, corruption, raw];
