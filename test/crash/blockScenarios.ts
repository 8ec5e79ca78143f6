import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run, type Task } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import type { Guest } from "./guest.ts";
import { openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

export const KIB = 1024;

/** An image of some format that was made by `create`, with a disk of `size` bytes, whose first `fill` bytes were written. */
export function filled(format: string, create: (file: Storage) => Task, size: number, fill: number): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(create(file));
  const disk = openNow(file, undefined, { format }), contents = new Uint8Array(size);
  contents.set(new Random(3).bytes(fill));
  if (fill > 0) void disk.write(0, contents.subarray(0, fill));
  void disk.close();
  return { bytes: file.bytes.slice(), contents };
}

/** Work on a disk of 96 KiB in blocks of a few sectors: all over the map's sectors, with flushes between. */
export function scattered(guest: Guest, reopen: () => void): void {
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
}

/** A file that held something else, and an empty image of a disk of `size` bytes in its place: there is none, or all of it. */
export function creation(name: string, format: string, size: number, create: (file: Storage) => Task, is: (bytes: Uint8Array) => boolean, broken: (bytes: Uint8Array) => string | undefined): Scenario {
  return taskScenario(`${name} takes a file's place`, () => new Random(5).bytes(20 * KIB), create, (bytes, ended) => {
    if (!is(bytes)) return ended ? "the image is not there" : undefined;
    const contents = new Uint8Array(size);
    void openNow(new MemoryStorage(bytes), undefined, { format }).read(0, contents);
    return contents.every((byte) => byte === 0) ? broken(bytes) : "a new disk that is not empty";
  });
}
