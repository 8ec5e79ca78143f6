import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { useNodeCodecs } from "../../disk/codecs/host.node.ts";
import type { Disk } from "../../disk/disk.ts";
import { nodeGate } from "../../disk/gate.node.ts";
import { open } from "../../disk/open.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { type Goal, Goals } from "./goals.ts";
import { baseImage, inMemoryFolder, qemuImg } from "./images.ts";
import { interleave } from "./report.ts";

const KIB = 1024, MIB = 1024 * KIB, SIZE = 512 * MIB;

/** Requests at a stride through a disk, one at a time: what `qemu-img bench -d 1` does. */
interface Row extends Goal {
  readonly name: string;
  readonly image: string;
  /** Where the first one is. */
  readonly from?: number;
  readonly bytes: number;
  readonly step: number;
  readonly count: number;
  /** More arguments for qemu-img bench: another I/O engine, a cache mode. */
  readonly args?: readonly string[];
  readonly write?: "writeback" | "durable";
  /** An overlay on this one is made anew each time. */
  readonly overlay?: string;
}

const ROWS: readonly Row[] = [
  { name: "4 KiB reads all over", floor: 2, goal: 3.5, image: "full.qcow2", bytes: 4 * KIB, step: 1_052_672, count: 40_000 },
  { name: "the same, against io_uring", floor: 1.5, goal: 2.7, image: "full.qcow2", bytes: 4 * KIB, step: 1_052_672, count: 40_000, args: ["-i", "io_uring"] },
  { name: "64 KiB sequential", floor: 1.5, goal: 1.8, image: "full.qcow2", bytes: 64 * KIB, step: 64 * KIB, count: 16_000 },
  { name: "2 MiB sequential", floor: 1, goal: 1.1, image: "full.qcow2", bytes: 2 * MIB, step: 2 * MIB, count: 500 },
  { name: "4 KiB sequential, zlib", floor: 8, goal: 16, image: "zlib.qcow2", from: 100 * MIB, bytes: 4 * KIB, step: 4 * KIB, count: 8000 },
  { name: "4 KiB allocating writes in an overlay", floor: 1, goal: 2, image: "top.qcow2", overlay: "full.qcow2", bytes: 4 * KIB, step: 64 * KIB, count: 6000, write: "writeback" },
];
const DURABLE: Row = { name: "4 KiB writes, each durable", floor: 0.9, goal: 1, image: "durable.qcow2", bytes: 4 * KIB, step: 4 * KIB, count: 300, write: "durable", args: ["-t", "directsync"] };

export async function ioBenchmark(rounds: number, only = ""): Promise<void> {
  useNodeCodecs();
  const goals = new Goals("One request at a time, in process, against qemu-img bench -d 1 (microseconds a request)");
  await inMemoryFolder(async (folder) => {
    baseImage(folder);
    qemuImg("convert", "-c", "-m", "16", "-W", "-O", "qcow2", "base.raw", "zlib.qcow2");
    makeFull("full.qcow2", SIZE);
    for (const row of ROWS.filter(({ name }) => name.includes(only))) await compare(goals, row, rounds);
  });
  if (!DURABLE.name.includes(only)) return;
  // Memory would have nothing to wait for.
  const folder = mkdtempSync(join(tmpdir(), "disk86-bench-")), home = process.cwd();
  try {
    process.chdir(folder);
    makeFull(DURABLE.image, 16 * MIB);
    await compare(goals, DURABLE, rounds);
  } finally {
    process.chdir(home);
    rmSync(folder, { recursive: true });
  }
}

async function compare(goals: Goals, row: Row, rounds: number): Promise<void> {
  const [theirs, ours] = await interleave([{ name: "qemu-img bench", run: () => qemuBench(row) }, { name: "disk86", run: () => ourBench(row) }], rounds);
  goals.ratio(row.name, theirs?.median ?? NaN, ours?.median ?? NaN, "µs", row);
}

/** An image whose clusters are all there. */
export function makeFull(path: string, size: number): void {
  qemuImg("create", "-q", "-f", "qcow2", path, String(size));
  execFileSync("qemu-io", ["-c", `write -q -P 170 0 ${size}`, path]);
}

function makeOverlay({ image, overlay }: Row): void {
  if (overlay === undefined) return;
  rmSync(image, { force: true });
  qemuImg("create", "-q", "-f", "qcow2", "-b", overlay, "-F", "qcow2", image);
}

function qemuBench(row: Row): number {
  makeOverlay(row);
  const { image, from = 0, bytes, step, count, args = [], write } = row;
  const printed = qemuImg("bench", "-f", "qcow2", "-d", "1", "-c", String(count), "-o", String(from), "-s", String(bytes), "-S", String(step), ...(write === undefined ? [] : ["-w"]), ...args, image);
  const [, seconds] = /completed in ([\d.]+) seconds/.exec(printed) ?? [];
  return (Number(seconds) * 1e6) / count;
}

async function ourBench(row: Row): Promise<number> {
  makeOverlay(row);
  const storage = FileStorage.open(row.image, { mode: row.write === undefined ? "read" : "write" });
  const disk = await open(storage, { format: "qcow2", readOnly: row.write === undefined, gate: nodeGate() });
  const started = performance.now();
  requests(disk, row);
  const micros = ((performance.now() - started) * 1000) / row.count;
  await disk.close();
  return micros;
}

function requests(disk: Disk, { from = 0, bytes, step, count, write }: Row): void {
  const buffer = new Uint8Array(bytes).fill(7);
  for (let i = 0, at = from; i < count; i++, at += step) {
    if (at + bytes > disk.size) at %= disk.size - bytes;
    if ((write === undefined ? disk.read(at, buffer) : disk.write(at, buffer)) instanceof Promise) throw new Error("not synchronous");
    if (write === "durable" && disk.flush() instanceof Promise) throw new Error("not synchronous");
  }
}
