import { createQcow } from "../../disk/formats/qcow1/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import type { Guest } from "./guest.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, SIZE = 300 * KIB + 512;

/** One L2 table covers 32 KiB; the L1 begins in the header's sector. */
function image(backing?: Uint8Array): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createQcow(file, { size: SIZE, clusterBits: 9, l2Bits: 6, backingFile: backing && "base" }));
  const disk = openNow(file, backing, { format: "qcow" });
  void disk.write(3 * KIB, new Uint8Array(2 * KIB).fill(9));
  const contents = new Uint8Array(SIZE);
  void disk.read(0, contents);
  void disk.close();
  return { bytes: file.bytes.slice(), contents };
}

/** The first work is in a table that is there, the later in new ones. */
function work(guest: Guest, reopen: () => void): void {
  void guest.fill(1000, 2000, 1);
  void guest.flush();
  void guest.fill(200, 100, 3);
  void guest.fill(40 * KIB, 700, 4);
  void guest.zero(2 * KIB, 3 * KIB + 100);
  void guest.flush();
  guest.discard(0, 2 * KIB);
  void guest.fill(41 * KIB, 1500, 5);
  void guest.flush();
  reopen();
  void guest.fill(1300, 5, 6);
  void guest.fill(299 * KIB, 1200, 7);
  void guest.flush();
  void guest.fill(31 * KIB, 2 * KIB, 8);
  for (const cluster of [3, 64, 65, 590]) void guest.pack(cluster * 512, cluster);
  void guest.flush();
  void guest.fill(64 * 512 + 100, 700, 9);
  void guest.pack(3 * 512, 10);
  void guest.flush();
}

const creation = taskScenario(
  "a new qcow image takes a file's place", () => new Random(5).bytes(4 * KIB),
  (file) => createQcow(file, { size: SIZE, clusterBits: 9, l2Bits: 6, backingFile: "base".repeat(150) }),
  (bytes, ended) => {
    const isImage = bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === 0x514649fb;
    if (!isImage) return ended ? "the image is not there" : undefined;
    const contents = new Uint8Array(SIZE), backing = new Random(6).bytes(SIZE);
    void openNow(new MemoryStorage(bytes), backing, { format: "qcow" }).read(0, contents);
    return Buffer.compare(contents, backing) === 0 ? undefined : "a new image that does not show its base";
  },
);

export const QCOW: readonly Scenario[] = [
  creation,
  ...[undefined, new Random(8).bytes(50 * KIB + 300), new Random(9).bytes(450 * KIB)].map((backing) => guestScenario({
    name: `qcow above ${backing === undefined ? "nothing" : `a base of ${backing.length} bytes`}`, format: "qcow", ...(backing === undefined ? {} : { backing }),
    image: () => image(backing), work,
  })),
];
