import { constants } from "node:os";
import { run, type Task, wait } from "../task.ts";
import { CommandError } from "./verb.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** Milliseconds between two looks at signals, and at the terminal. */
const TURN = 50;

/**
 * Runs a task that a signal may stop between two of its steps: the task then sees an error thrown at its `yield`,
 * and cleans up as after any other. `run` alone would let no signal through as long as files answer at once.
 */
export async function runInterruptible<T>(task: Task<T>): Promise<T> {
  let stopped: (typeof SIGNALS)[number] | undefined;
  const stop = (signal: NodeJS.Signals): void => { stopped = SIGNALS.find((one) => one === signal); };
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    return await run(paced(task, () => {
      if (stopped !== undefined) throw new CommandError(`stopped by ${stopped}`, 128 + constants.signals[stopped]);
    }));
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

/** `task`, giving the event loop a turn now and then. What `afterTurn` throws is thrown into the task. */
function* paced<T>(task: Task<T>, afterTurn: () => void): Task<T> {
  let next = task.next(), last = performance.now();
  while (!next.done) {
    try {
      yield next.value;
      if (performance.now() - last > TURN) {
        yield wait(() => new Promise((resolve) => { setImmediate(resolve); }));
        last = performance.now();
        afterTurn();
      }
    } catch (error) {
      next = task.throw(error);
      continue;
    }
    next = task.next();
  }
  return next.value;
}
