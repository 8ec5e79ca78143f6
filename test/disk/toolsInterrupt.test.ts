import { expect, test } from "vitest";
import { type Task, wait } from "../../disk/task.ts";
import { runInterruptible } from "../../disk/tools/interrupt.ts";

/** A task whose steps answer at once, for `milliseconds`. */
function* busy(milliseconds: number, log: string[]): Task<string> {
  try {
    for (const began = performance.now(); performance.now() - began < milliseconds;) yield wait(() => {});
    return "done";
  } finally {
    log.push("cleaned up");
  }
}

test("a task that never waits is stopped by a signal, and cleans up", async () => {
  const log: string[] = [];
  const running = runInterruptible(busy(10_000, log));
  setTimeout(() => { process.emit("SIGINT", "SIGINT"); }, 60);
  await expect(running).rejects.toMatchObject({ message: "stopped by SIGINT", exitCode: 130 });
  expect(log).toEqual(["cleaned up"]);
});

test("without a signal it ends as ever, and listens no more", async () => {
  const before = process.listenerCount("SIGINT");
  expect(await runInterruptible(busy(120, []))).toBe("done");
  expect(process.listenerCount("SIGINT")).toBe(before);
});
