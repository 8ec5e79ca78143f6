import { checkParallels } from "../../disk/formats/parallels/check.ts";
import { createParallels } from "../../disk/formats/parallels/create.ts";
import { openDisk } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run, wait } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { brokenParallels } from "../support/parallels-inspect.ts";
import type { Guest } from "./guest.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, IN_USE = 44, BAT = 64;

function made(size: number, clusterSize: number, old: boolean, fill: number): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createParallels(file, { size, clusterSize, old }));
  const disk = openNow(file, undefined, { format: "parallels" }), contents = new Uint8Array(size);
  contents.set(new Random(3).bytes(fill));
  void disk.write(0, contents.subarray(0, fill));
  void disk.close();
  return { bytes: file.bytes.slice(), contents };
}

const work = (guest: Guest, reopen: () => void): void => {
  for (let i = 0; i < 4; i++) {
    void guest.fill(((i * 37) % 90) * KIB + 100, 700, i + 1);
    void guest.fill(i * 512, 512, i + 11);
    if (i % 2 === 1) void guest.flush();
  }
  void guest.zero(20 * KIB, 3 * KIB);
  guest.discard(0, KIB);
  void guest.fill(95 * KIB, KIB, 31);
  void guest.flush();
  reopen();
  void guest.fill(60 * KIB, 2000, 41);
  void guest.fill(100, 300, 42);
  void guest.flush();
};

const marked = (bytes: Uint8Array): boolean => new DataView(bytes.buffer, bytes.byteOffset).getUint32(IN_USE, true) === 0x746f6e59;

/** Whoever sees a change that was not closed also sees the mark. */
function session(): Scenario {
  const before = made(96 * KIB, 512, false, 5 * KIB).bytes;
  return taskScenario("a Parallels image says that it is in use", () => before, function* (file) {
    const disk = yield* openDisk(file, { format: "parallels" });
    yield wait(() => disk.write(0, new Uint8Array(5000).fill(1)));
    yield wait(() => disk.write(50 * KIB, new Uint8Array(5000).fill(1)));
  }, (bytes) => (marked(bytes) || Buffer.compare(bytes, before) === 0 ? undefined : "changed without the mark of use"));
}

/** Once the mark is gone everything else is there. */
function closing(): Scenario {
  const before = made(96 * KIB, 512, false, 5 * KIB).bytes;
  return taskScenario("a Parallels image is closed", () => before, function* (file) {
    const disk = yield* openDisk(file, { format: "parallels" });
    yield wait(() => disk.write(50 * KIB, new Uint8Array(5000).fill(1)));
    yield wait(() => disk.close());
  }, (bytes, ended) => (ended && marked(bytes) ? "closed, and still in use" : brokenParallels(bytes)));
}

function repair(): Scenario {
  const { bytes: before } = made(96 * KIB, 512, false, 5 * KIB), view = new DataView(before.buffer);
  view.setUint32(BAT + 4 * 100, 5000, true);
  view.setUint32(IN_USE, 0x746f6e59, true);
  return taskScenario("a Parallels image is repaired", () => before, (file) => checkParallels(file, { repair: "all" }), (bytes, ended) => {
    if (marked(bytes)) return ended ? "repaired, and still in use" : undefined;
    return brokenParallels(bytes);
  });
}

const creation = [false, true].map((old) => taskScenario(
  `a new Parallels image takes a file's place, ${old ? "the old form" : "the new form"}`, () => new Random(5).bytes(20 * KIB),
  (file) => createParallels(file, { size: 300 * KIB, clusterSize: 512, old }),
  (bytes, ended) => {
    if (!String.fromCharCode(...bytes.subarray(0, 16)).startsWith("Withou")) return ended ? "the image is not there" : undefined;
    const contents = new Uint8Array(300 * KIB);
    void openNow(new MemoryStorage(bytes), undefined, { format: "parallels" }).read(0, contents);
    return contents.every((byte) => byte === 0) ? brokenParallels(bytes) : "a new disk that is not empty";
  },
));

export const PARALLELS: readonly Scenario[] = [
  guestScenario({ name: "Parallels", format: "parallels", image: () => made(96 * KIB, 512, false, 5 * KIB), work }),
  guestScenario({ name: "Parallels of the old form, clusters of three sectors", format: "parallels", image: () => made(96 * KIB, 1536, true, 5 * KIB), work }),
  session(), closing(), repair(), ...creation,
];
