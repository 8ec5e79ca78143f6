import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { baseImage, inMemoryFolder, OURS, PEAK, qemuImg } from "./images.ts";
import { interleave, type Side } from "./report.ts";
import { type Goal, Goals } from "./goals.ts";

/** One job that both programs do with the same arguments. */
interface Job extends Goal { readonly name: string; readonly args: readonly string[] }

const JOBS: readonly Job[] = [
  { name: "qcow2 -> raw", floor: 0.8, goal: 1, args: ["-O", "raw", "base.qcow2", "out"] },
  { name: "raw -> qcow2", floor: 0.7, goal: 1, args: ["-O", "qcow2", "base.raw", "out"] },
  { name: "zlib qcow2 -> raw", floor: 1.2, goal: 1.5, args: ["-O", "raw", "zlib.qcow2", "out"] },
  { name: "zstd qcow2 -> raw", floor: 0.7, goal: 1, args: ["-O", "raw", "zstd.qcow2", "out"] },
  { name: "raw -> qcow2 -c", floor: 2.5, goal: 3.5, args: ["-c", "-O", "qcow2", "base.raw", "out"] },
  { name: "raw -> qcow2 -c -m16 -W", floor: 1.5, goal: 2.5, args: ["-c", "-m", "16", "-W", "-O", "qcow2", "base.raw", "out"] },
];

/** `convert` as a command, start-up and all, beside qemu-img. `only`: a part of a job's name. */
export async function convertBenchmark(rounds: number, only = ""): Promise<void> {
  if (!existsSync(OURS)) throw new Error("build the command first: npm run prepare");
  await inMemoryFolder(async (folder) => {
    baseImage(folder);
    qemuImg("convert", "-O", "qcow2", "base.raw", "base.qcow2");
    for (const type of ["zlib", "zstd"]) qemuImg("convert", "-c", "-m", "16", "-W", "-O", "qcow2", "-o", `compression_type=${type}`, "base.raw", `${type}.qcow2`);
    const goals = new Goals("Converting a 2 GiB disk of real files, whole commands, against qemu-img"), memory: number[] = [];
    for (const job of JOBS.filter(({ name }) => name.includes(only))) {
      const [theirs, ours] = await interleave(sides(job, memory), rounds);
      goals.ratio(job.name, theirs?.median ?? NaN, ours?.median ?? NaN, "ms", job);
      qemuImg("compare", "-F", "raw", "out", "base.raw");
    }
    goals.atMost("convert, peak memory", Math.max(...memory), "MB", { floor: 150, goal: 100 });
  });
}

function sides({ args }: Job, memory: number[]): Side[] {
  return [
    { name: "qemu-img", run: () => timed("qemu-img", ["convert", ...args]).ms },
    {
      name: "disk86",
      run: () => {
        const { ms, stderr } = timed(process.execPath, [...PEAK, OURS, "convert", ...args]);
        memory.push(Number(stderr.split("\n").at(-1)) / 1000);
        return ms;
      },
    },
  ];
}

/** Milliseconds that a command takes; the new file is made anew each time. */
function timed(program: string, args: readonly string[]): { ms: number; stderr: string } {
  rmSync("out", { force: true });
  const started = performance.now(), { status, stderr } = spawnSync(program, args, { encoding: "utf8" }), ms = performance.now() - started;
  if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
  return { ms, stderr };
}
