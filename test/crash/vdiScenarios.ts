import { createVdi } from "../../disk/formats/vdi/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { brokenVdi } from "../support/vdi-inspect.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";
import type { Guest } from "./guest.ts";

const KIB = 1024;

function made(size: number, fixed: boolean, fill: number): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createVdi(file, { size, fixed, blockSize: 512 }));
  const disk = openNow(file, undefined, { format: "vdi" }), contents = new Uint8Array(size);
  contents.set(new Random(3).bytes(fill));
  void disk.write(0, contents.subarray(0, fill));
  void disk.close();
  return { bytes: file.bytes.slice(), contents };
}

/** Blocks all over the map's sectors, with flushes between. */
function scatter(guest: Guest): void {
  for (let i = 0; i < 4; i++) {
    void guest.fill(((i * 37) % 90) * KIB + 100, 700, i + 1);
    void guest.fill(i * 512, 512, i + 11);
    if (i % 2 === 1) void guest.flush();
  }
  void guest.zero(20 * KIB, 3 * KIB);
  guest.discard(0, KIB);
  void guest.fill(95 * KIB, KIB, 31);
  void guest.flush();
}

const work = (guest: Guest, reopen: () => void): void => {
  scatter(guest);
  reopen();
  void guest.fill(60 * KIB, 2000, 41);
  void guest.fill(100, 300, 42);
  void guest.flush();
};

export const VDI: readonly Scenario[] = [
  guestScenario({ name: "a dynamic VDI", format: "vdi", image: () => made(96 * KIB, false, 5 * KIB), work }),
  guestScenario({ name: "a fixed VDI", format: "vdi", image: () => made(96 * KIB, true, 5 * KIB), work }),
  guestScenario({
    name: "a VDI whose map does not fit the cache", format: "vdi", image: () => made(8192 * KIB, false, 0), options: { tableCache: 1 },
    work: (guest) => {
      for (let i = 0; i < 5; i++) void guest.fill(((i * 3) % 16) * 512 * KIB + 100, 900, i + 1);
      void guest.flush();
    },
  }),
  ...[false, true].map((fixed) => taskScenario(
    `a new ${fixed ? "fixed" : "dynamic"} VDI takes a file's place`, () => new Random(5).bytes(20 * KIB), (file) => createVdi(file, { size: 300 * KIB, fixed, blockSize: 512 }),
    (bytes, ended) => {
      if (bytes.length < 512 || new DataView(bytes.buffer, bytes.byteOffset).getUint32(0x40, true) !== 0xbeda107f) return ended ? "the image is not there" : undefined;
      const contents = new Uint8Array(300 * KIB);
      void openNow(new MemoryStorage(bytes), undefined, { format: "vdi" }).read(0, contents);
      return contents.every((byte) => byte === 0) ? brokenVdi(bytes) : "a new disk that is not empty";
    },
  )),
];
