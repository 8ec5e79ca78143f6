import { Disk } from "../../disk/disk.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { open } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { interleave, print, type Side } from "./report.ts";

const SIZE = 64 * 2 ** 20, BLOCK = 4096, READS = 200_000;

/** What a resident 4 KiB read costs over the bare storage, and an allocating write over one in place. */
export async function diskBenchmark(rounds: number): Promise<void> {
  const bare = new MemoryStorage(new Uint8Array(SIZE).fill(1));
  const full = await filled(), above = await overlayOn(full);
  const reads = (name: string, storage: Storage): Side => ({ name, run: () => randomReads(storage) });
  print("4 KiB random read, resident, all in memory", "µs", await interleave([
    reads("bare storage", bare), reads("qcow2", full), reads("qcow2 overlay on qcow2", above),
  ], rounds));
}

/** Microseconds a read. */
function randomReads(storage: Storage): number {
  const into = new Uint8Array(BLOCK);
  let at = 1;
  const started = performance.now();
  for (let i = 0; i < READS; i++) {
    at = (at * 1103515245 + 12345) % 2 ** 31;
    if (storage.read((at % (SIZE / BLOCK)) * BLOCK, into) !== undefined) throw new Error("not synchronous");
  }
  return ((performance.now() - started) * 1000) / READS;
}

async function filled(): Promise<Disk> {
  const file = new MemoryStorage(undefined, "full.qcow2");
  await run(createQcow2(file, { size: SIZE }));
  const disk = await open(file, { format: "qcow2" });
  await disk.write(0, new Uint8Array(SIZE).fill(1));
  await disk.flush();
  return disk;
}

async function overlayOn(base: Disk): Promise<Disk> {
  const file = new MemoryStorage(undefined, "above.qcow2");
  await run(createQcow2(file, { size: SIZE, backingFile: "base", backingFormat: "raw" }));
  return open(file, { format: "qcow2", gate: { open: () => base } });
}
