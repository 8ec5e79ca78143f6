import { checkParallels } from "../../disk/formats/parallels/check.ts";
import { createParallels } from "../../disk/formats/parallels/create.ts";
import { openDisk } from "../../disk/open.ts";
import { wait } from "../../disk/task.ts";
import { brokenParallels } from "../support/parallels-inspect.ts";
import { creation, filled, KIB, scattered } from "./blockScenarios.ts";
import { guestScenario, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const IN_USE = 44, BAT = 64;

const made = (clusterSize: number, old: boolean) => filled("parallels", (file) => createParallels(file, { size: 96 * KIB, clusterSize, old }), 96 * KIB, 5 * KIB);

const marked = (bytes: Uint8Array): boolean => new DataView(bytes.buffer, bytes.byteOffset).getUint32(IN_USE, true) === 0x746f6e59;

/** Whoever sees a change that was not closed also sees the mark. */
function session(): Scenario {
  const before = made(512, false).bytes;
  return taskScenario("a Parallels image says that it is in use", () => before, function* (file) {
    const disk = yield* openDisk(file, { format: "parallels" });
    yield wait(() => disk.write(0, new Uint8Array(5000).fill(1)));
    yield wait(() => disk.write(50 * KIB, new Uint8Array(5000).fill(1)));
  }, (bytes) => (marked(bytes) || Buffer.compare(bytes, before) === 0 ? undefined : "changed without the mark of use"));
}

/** Once the mark is gone everything else is there. */
function closing(): Scenario {
  const before = made(512, false).bytes;
  return taskScenario("a Parallels image is closed", () => before, function* (file) {
    const disk = yield* openDisk(file, { format: "parallels" });
    yield wait(() => disk.write(50 * KIB, new Uint8Array(5000).fill(1)));
    yield wait(() => disk.close());
  }, (bytes, ended) => (ended && marked(bytes) ? "closed, and still in use" : brokenParallels(bytes)));
}

function repair(): Scenario {
  const { bytes: before } = made(512, false), view = new DataView(before.buffer);
  view.setUint32(BAT + 4 * 100, 5000, true);
  view.setUint32(IN_USE, 0x746f6e59, true);
  return taskScenario("a Parallels image is repaired", () => before, (file) => checkParallels(file, { repair: "all" }), (bytes, ended) => {
    if (marked(bytes)) return ended ? "repaired, and still in use" : undefined;
    return brokenParallels(bytes);
  });
}

const isParallels = (bytes: Uint8Array): boolean => String.fromCharCode(...bytes.subarray(0, 16)).startsWith("Withou");

export const PARALLELS: readonly Scenario[] = [
  guestScenario({ name: "Parallels", format: "parallels", image: () => made(512, false), work: scattered }),
  guestScenario({ name: "Parallels of the old form, clusters of three sectors", format: "parallels", image: () => made(1536, true), work: scattered }),
  session(), closing(), repair(),
  ...[false, true].map((old) => creation(`a new Parallels image of the ${old ? "old" : "new"} form`, "parallels", 300 * KIB, (file) => createParallels(file, { size: 300 * KIB, clusterSize: 512, old }), isParallels, brokenParallels)),
];
