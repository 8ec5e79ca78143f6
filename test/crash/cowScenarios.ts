import { createCow } from "../../disk/formats/cow/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { cowContents } from "../support/cow-inspect.ts";
import { Random } from "../support/generator.ts";
import type { Guest } from "./guest.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, SIZE = 96 * KIB;

function image(backing?: Uint8Array): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createCow(file, { size: SIZE, backingFile: backing && "base" }));
  const disk = openNow(file, backing, { format: "cow" });
  void disk.write(3 * KIB, new Uint8Array(2 * KIB).fill(9));
  void disk.close();
  const contents = cowContents(file.bytes, backing ?? new Uint8Array(SIZE));
  return { bytes: file.bytes.slice(), contents };
}

function work(guest: Guest, reopen: () => void): void {
  void guest.fill(1000, 3000, 1);
  void guest.fill(0, 512, 2);
  void guest.flush();
  void guest.fill(200, 100, 3);
  void guest.zero(2 * KIB, 5 * KIB);
  void guest.fill(60 * KIB, 700, 4);
  void guest.flush();
  guest.discard(0, 2 * KIB);
  void guest.fill(70 * KIB, 2048, 5);
  void guest.flush();
  reopen();
  void guest.fill(1300, 5, 6);
  void guest.flush();
}

/** A file that held something else, and an image in its place: there is none, or all of it. */
const creation = taskScenario(
  "a new cow image takes a file's place", () => new Random(5).bytes(20 * KIB), (file) => createCow(file, { size: SIZE, backingFile: "base" }),
  (bytes, ended) => {
    const isImage = bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0) === 0x4f4f4f4d;
    if (!isImage) return ended ? "the image is not there" : undefined;
    const contents = new Uint8Array(SIZE), backing = new Random(6).bytes(SIZE);
    void openNow(new MemoryStorage(bytes), backing).read(0, contents);
    return Buffer.compare(contents, backing) === 0 ? undefined : "a new image that does not show its base";
  },
);

export const COW: readonly Scenario[] = [
  creation,
  ...[undefined, new Random(8).bytes(50 * KIB + 300), new Random(9).bytes(200 * KIB)].map((backing) => guestScenario({
    name: `cow above ${backing === undefined ? "nothing" : `a base of ${backing.length} bytes`}`, format: "cow", ...(backing === undefined ? {} : { backing }),
    image: () => image(backing), work,
  })),
];
