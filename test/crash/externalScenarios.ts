import { createQcow2, type Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import type { Guest } from "./guest.ts";
import { guestScenario, type Made, openNow, type Scenario } from "./scenario.ts";

const KIB = 1024;
const base = new Random(87).bytes(40 * KIB);

/** An image with an external data file, the first 10 KiB of its disk written. */
function external(options: Partial<Qcow2CreateOptions>, backing?: Uint8Array): Made {
  const size = 48 * KIB, file = new MemoryStorage(), data = new MemoryStorage(new Uint8Array(size), "data");
  void run(createQcow2(file, { size, dataFile: "data", ...(backing && { backingFile: "base", backingFormat: "raw" }), ...options }));
  const disk = openNow(file, backing, { format: "qcow2" }, data), contents = new Uint8Array(size);
  void disk.write(0, Uint8Array.from({ length: 10 * KIB }, (_, i) => ((i * 11) % 255) + 1));
  void disk.flush();
  void disk.read(0, contents);
  void disk.close();
  return { bytes: file.bytes.slice(), contents, data: data.bytes.slice() };
}

/** Clusters come, go, and come again, each time in the same place. */
function work(guest: Guest, reopen: () => void): void {
  void guest.fill(20 * KIB + 100, 700, 1);
  void guest.flush();
  void guest.fill(33 * KIB, 3000, 2);
  void guest.zero(KIB, 2 * KIB);
  void guest.flush();
  void guest.fill(KIB + 512, 100, 3);
  guest.discard(20 * KIB, 4 * KIB);
  void guest.flush();
  void guest.zero(4 * KIB, 4 * KIB, true);
  void guest.fill(21 * KIB, 200, 4);
  void guest.flush();
  reopen();
  guest.discard(0, 16 * KIB);
  void guest.fill(100, 300, 5);
  void guest.flush();
}

function resizing(guest: Guest): void {
  void guest.fill(38 * KIB, 1000, 1);
  void guest.truncate(39 * KIB - 512);
  void guest.flush();
  void guest.truncate(46 * KIB);
  void guest.fill(44 * KIB, 1000, 2);
  void guest.flush();
  void guest.truncate(90 * KIB);
  void guest.fill(88 * KIB, 100, 3);
  void guest.flush();
}

/** The guest's data stands in a file of its own. */
export const EXTERNAL: readonly Scenario[] = [
  guestScenario({ name: "an external data file", image: () => external({ clusterSize: 2048 }), work }),
  guestScenario({ name: "an external data file, above a base", backing: base, image: () => external({ clusterSize: 2048 }, base), work }),
  guestScenario({ name: "an external data file, subclusters", image: () => external({ clusterSize: 16 * KIB, extendedL2: true }), work }),
  guestScenario({ name: "a raw external data file", raw: true, image: () => external({ clusterSize: 2048, dataFileRaw: true }), work }),
  guestScenario({ name: "an external data file is resized", image: () => external({ clusterSize: 2048 }), work: resizing }),
  guestScenario({ name: "a raw external data file is resized", raw: true, image: () => external({ clusterSize: 2048, dataFileRaw: true }), work: resizing }),
];
