import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { interleave, median, print, type Side } from "./report.ts";

interface Boot { readonly ms: number; readonly rss: number }

/** Time to shell and peak memory of the tiny guest: an overlay over a compressed qcow2, against a raw image in v86's own memory buffer. */
export async function bootBenchmark(rounds: number): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "disk86-bench-")), raw = join(folder, "tiny.raw");
  try {
    execFileSync("qemu-img", ["convert", "-O", "raw", "guests/out/tiny.qcow2", raw]);
    const memory = new Map<string, number[]>();
    const side = (name: string, how: string): Side => ({
      name,
      run() {
        // A process for each boot: nothing of one run, neither compiled code nor memory, helps the next.
        const { ms, rss } = JSON.parse(execFileSync(process.execPath, [process.argv[1] ?? "", "boot-one", how, raw], { encoding: "utf8", timeout: 300_000 })) as Boot;
        memory.set(name, [...(memory.get(name) ?? []), rss]);
        return ms;
      },
    });
    const sides = [side("raw in memory, v86's own buffer (IDE)", "plain"), side("overlay on compressed qcow2 (IDE)", "ide"), side("overlay on compressed qcow2 (virtio)", "virtio")];
    const outcomes = await interleave(sides, rounds, (name, ms) => { console.log(`  ${name}: ${ms.toFixed(0)} ms`); });
    print("Boot of the tiny guest, power-on to shell", "ms", outcomes, 1.1);
    console.log("\nPeak memory of the process (MiB; goal: at most 96 over the first)");
    const first = median(memory.get(sides[0]?.name ?? "") ?? []);
    for (const [name, values] of memory) console.log(`  ${name.padEnd(46)} ${median(values).toFixed(0).padStart(9)}  ${(median(values) - first).toFixed(0).padStart(5)} over`);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
