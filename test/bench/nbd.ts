import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { findTool, runTool } from "../support/tools.ts";
import { type Goal, Goals } from "./goals.ts";
import { interleave } from "./report.ts";

const SIZE = 256 << 20, CLI = "dist/node/disk86.js";

/** What a real client, qemu-img bench, waits for our server and for qemu-nbd, each with a copy of the same image. */
export async function nbdBenchmark(rounds: number): Promise<void> {
  if (!existsSync(CLI)) throw new Error(`${CLI} is missing: npm run prepare builds it`);
  const folder = mkdtempSync(join(tmpdir(), "disk86-bench-")), at = (name: string): string => join(folder, name);
  const bytes = Buffer.alloc(SIZE, 0x5a), servers: ChildProcess[] = [];
  try {
    for (const side of ["theirs", "ours"]) {
      writeFileSync(at(`${side}.raw`), bytes);
      runTool("qemu-img", ["convert", "-O", "qcow2", "-S", "0", at(`${side}.raw`), at(`${side}.qcow2`)]);
    }
    for (const format of ["raw", "qcow2"]) {
      servers.push(spawn(findTool("qemu-nbd") ?? "qemu-nbd", ["-t", "-f", format, "-k", at(`theirs-${format}`), at(`theirs.${format}`)], { stdio: "ignore" }));
      servers.push(spawn(process.execPath, [CLI, "serve", "-t", "-f", format, "-k", at(`ours-${format}`), at(`ours.${format}`)], { stdio: "ignore" }));
      await Promise.all([listening(at(`theirs-${format}`)), listening(at(`ours-${format}`))]);
      await rows(format, (side) => at(`${side}-${format}`), rounds);
    }
  } finally {
    for (const server of servers) server.kill();
    rmSync(folder, { recursive: true });
  }
}

const ROWS: readonly { readonly title: string; readonly count: number; readonly args: readonly string[]; readonly goal: Goal }[] = [
  { title: "4 KiB reads, one at a time", count: 20_000, args: ["-d", "1", "-s", "4096"], goal: { floor: 0.9, goal: 1 } },
  { title: "4 KiB reads, 16 at a time", count: 50_000, args: ["-d", "16", "-s", "4096"], goal: { floor: 2, goal: 3 } },
  { title: "1 MiB reads", count: 500, args: ["-d", "1", "-s", "1048576"], goal: { floor: 0.9, goal: 1 } },
  { title: "4 KiB writes, one at a time", count: 10_000, args: ["-w", "-d", "1", "-s", "4096"], goal: { floor: 0.9, goal: 1 } },
  { title: "1 MiB writes", count: 250, args: ["-w", "-d", "1", "-s", "1048576"], goal: { floor: 0.9, goal: 1 } },
];

async function rows(format: string, socket: (side: string) => string, rounds: number): Promise<void> {
  const goals = new Goals(`disk86 serve and qemu-nbd, ${format}, waited for by qemu-img bench`);
  for (const { title, count, args, goal } of ROWS) {
    const [theirs, ours] = await interleave(["theirs", "ours"].map((name) => ({ name, run: () => microseconds(socket(name), count, args) })), rounds);
    goals.ratio(title, theirs?.median ?? NaN, ours?.median ?? NaN, "µs", goal);
  }
}

/** Microseconds a request. */
function microseconds(socket: string, count: number, args: readonly string[]): number {
  const said = runTool("qemu-img", ["bench", "-f", "raw", "-t", "none", "-c", String(count), ...args, `nbd+unix:///?socket=${socket}`]);
  const seconds = Number(/completed in ([\d.]+) seconds/.exec(said)?.[1]);
  if (!(seconds > 0)) throw new Error(`qemu-img bench says: ${said}`);
  return (seconds * 1e6) / count;
}

async function listening(socket: string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const there = await new Promise<boolean>((resolve) => {
      const probe = connect(socket, () => { probe.destroy(); resolve(true); });
      probe.once("error", () => { resolve(false); });
    });
    if (there) return;
    await new Promise((resolve) => { setTimeout(resolve, 50); });
  }
  throw new Error(`nobody listens at ${socket}`);
}
