import { spawnSync } from "node:child_process";
import { run } from "../../disk/task.ts";
import { checkQcow2 } from "../../disk/formats/qcow2/check.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { Goals } from "./goals.ts";
import { inMemoryFolder, OURS, PEAK, qemuImg } from "./images.ts";
import { interleave, type Side } from "./report.ts";

/** What is over in a moment, start-up included: absolute goals. */
export async function commandBenchmark(rounds: number): Promise<void> {
  const goals = new Goals("Short commands, beside qemu-img");
  await inMemoryFolder(async () => {
    qemuImg("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "mapped.qcow2", "100G");
    const memory: number[] = [];
    const [theirs, ours, inside] = await interleave([command("qemu-img", ["check"]), command(process.execPath, [...PEAK, OURS, "check"], memory), { name: "in process", run: checkInside }], rounds);
    goals.beside("check of 100 GiB mapped, command", theirs?.median ?? NaN, ours?.median ?? NaN, "ms", { floor: 250, goal: 150 });
    goals.atMost("check of 100 GiB mapped, in process", inside?.median ?? NaN, "ms", { floor: 150, goal: 100 });
    goals.atMost("check of 100 GiB mapped, peak memory", Math.max(...memory), "MB", { floor: 100, goal: 60 });
    const [theirInfo, ourInfo] = await interleave([command("qemu-img", ["info"]), command(process.execPath, [OURS, "info"])], rounds);
    goals.beside("info, whole process", theirInfo?.median ?? NaN, ourInfo?.median ?? NaN, "ms", { floor: 120, goal: 80 });
  });
}

function command(program: string, args: readonly string[], memory?: number[]): Side {
  return {
    name: program,
    run() {
      const started = performance.now(), { status, stderr } = spawnSync(program, [...args, "mapped.qcow2"], { encoding: "utf8" }), ms = performance.now() - started;
      if (status !== 0) throw new Error(`${program} ${args.join(" ")}: ${stderr}`);
      memory?.push(Number(stderr.split("\n").at(-1)) / 1000);
      return ms;
    },
  };
}

async function checkInside(): Promise<number> {
  const file = FileStorage.open("mapped.qcow2"), started = performance.now();
  await run(checkQcow2(file));
  const ms = performance.now() - started;
  file.close();
  return ms;
}
