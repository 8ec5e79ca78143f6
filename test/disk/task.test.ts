import { describe, expect, test } from "vitest";
import { ChangeOrder } from "../../disk/order.ts";
import { all } from "../../disk/storage.ts";
import { call, run, TaskQueue, wait, type Task } from "../../disk/task.ts";

const later = async <T>(value: T): Promise<T> => { await Promise.resolve(); return value; };
const failLater = async (): Promise<void> => { await Promise.resolve(); throw new Error("later"); };

/** A promise in the test's hands. */
function gate(): { promise: Promise<void>; open: () => void; fail: (error: Error) => void } {
  let open = (): void => {}, fail: (error: Error) => void = () => {};
  const promise = new Promise<void>((resolve, reject) => { [open, fail] = [resolve, reject]; });
  return { promise, open, fail };
}

const settle = async (): Promise<void> => { for (let i = 0; i < 20; i++) await Promise.resolve(); };

describe("run", () => {
  function* adds(steps: readonly (() => void | Promise<void>)[]): Task<string> {
    const caught: string[] = [];
    for (const start of steps) {
      try {
        yield wait(start);
        caught.push("ok");
      } catch (error) {
        caught.push((error as Error).message);
      }
    }
    return caught.join(" ");
  }

  const now = (): void => {}, failNow = (): never => { throw new Error("now"); };

  test("stays synchronous while every step is, and hands failures to the task", () => {
    expect(run(adds([now, failNow, now, failNow, failNow]))).toBe("ok now ok now now");
  });

  test("goes on asynchronously from the first step that is, with failures of both kinds", async () => {
    const result = run(adds([failNow, () => later(undefined), now, failNow, failLater, failLater, failNow, now]));
    expect(result).toBeInstanceOf(Promise);
    expect(await result).toBe("now ok ok now later later now ok");
  });

  test("fails as the task fails: thrown while synchronous, rejected afterwards; finally blocks run", async () => {
    const log: string[] = [];
    function* task(step: () => void | Promise<void>): Task {
      try {
        yield wait(step);
      } finally {
        yield wait(() => { log.push("cleaned"); });
      }
    }
    expect(() => run(task(failNow))).toThrow("now");
    await expect(run(task(failLater))).rejects.toThrow("later");
    expect(log).toEqual(["cleaned", "cleaned"]);
  });

  test("an error that the task throws of its own passes through, at its first step or later", async () => {
    function* own(first: () => void | Promise<void>): Task {
      yield wait(first);
      throw new Error("own");
    }
    expect(() => run(own(now))).toThrow("own");
    await expect(run(own(() => later(undefined)))).rejects.toThrow("own");
  });

  test("call answers with a value from now or later", async () => {
    expect(run(call(() => 7))).toBe(7);
    expect(await run(call(() => later(8)))).toBe(8);
  });
});

describe("TaskQueue", () => {
  function* steps(log: string[], name: string, ...waits: (void | Promise<void>)[]): Task<string> {
    log.push(`${name} begins`);
    for (const pending of waits) yield wait(() => pending);
    log.push(`${name} ends`);
    return name;
  }

  test("an idle queue works at once; a busy one in order, one at a time", async () => {
    const queue = new TaskQueue(), log: string[] = [], first = gate();
    expect(queue.run(() => steps(log, "sync"))).toBe("sync");
    const a = queue.run(() => steps(log, "a", first.promise)), b = queue.run(() => steps(log, "b")), c = queue.run(() => steps(log, "c"));
    await settle();
    expect(log).toEqual(["sync begins", "sync ends", "a begins"]);
    first.open();
    expect(await Promise.all([a, b, c].map((one) => Promise.resolve(one)))).toEqual(["a", "b", "c"]);
    expect(log.slice(3)).toEqual(["a ends", "b begins", "b ends", "c begins", "c ends"]);
    await settle();
    expect(queue.run(() => steps(log, "d"))).toBe("d");
  });

  test("a failed task fails alone: those behind it run", async () => {
    const queue = new TaskQueue(), log: string[] = [], first = gate();
    const a = queue.run(() => steps(log, "a", first.promise));
    const b = queue.run(() => steps(log, "b"));
    first.fail(new Error("a fails"));
    await expect(a).rejects.toThrow("a fails");
    expect(await b).toBe("b");
    expect(() => queue.run(() => steps(log, "c", undefined))).not.toThrow();
    await settle();
    expect(() => queue.run(function* (): Task { yield wait(() => { throw new Error("sync"); }); })).toThrow("sync");
    expect(queue.run(() => steps(log, "e"))).toBe("e");
  });
});

describe("ChangeOrder", () => {
  test("overlapping changes wait for each other in the order of issue; others do not", async () => {
    const order = new ChangeOrder(), log: string[] = [], gates = [gate(), gate(), gate()] as const;
    const start = (name: string, pending?: Promise<void>) => (): void | Promise<void> => { log.push(name); return pending; };
    const a = order.run(0, 100, start("a", gates[0].promise));
    const b = order.run(50, 100, start("b", gates[1].promise));
    const c = order.run(149, 10, start("c"));
    void order.run(200, 5, start("d", gates[2].promise));
    const e = order.run(99, 1, start("e"));
    const f = order.run(159, 41, start("f"));
    await settle();
    expect(log).toEqual(["a", "d", "f"]);
    expect(f).toBeUndefined();
    gates[0].open();
    await a;
    await settle();
    expect(log).toEqual(["a", "d", "f", "b"]);
    gates[1].open();
    await Promise.all([b, c, e].map((one) => Promise.resolve(one)));
    expect(log).toEqual(["a", "d", "f", "b", "c", "e"]);
    let idle = false;
    const done = Promise.resolve(order.idle()).then(() => { idle = true; });
    await settle();
    expect(idle).toBe(false);
    gates[2].open();
    await done;
    expect(order.idle()).toBeUndefined();
  });

  test("a failure is its own change's only: what waited behind it runs", async () => {
    const order = new ChangeOrder(), first = gate();
    const a = order.run(0, 10, () => first.promise), b = order.run(5, 10, () => failLater()), c = order.run(5, 1, () => {});
    first.fail(new Error("a fails"));
    await expect(a).rejects.toThrow("a fails");
    await expect(b).rejects.toThrow("later");
    await expect(c).resolves.toBeUndefined();
    expect(order.idle()).toBeUndefined();
    expect(() => order.run(0, 1, () => { throw new Error("at once"); })).toThrow("at once");
    expect(order.run(0, 1, () => {})).toBeUndefined();
  });
});

test("all waits for everyone, even when one has failed, and fails with the first failure", async () => {
  const slow = gate();
  let done = false;
  const pending = Promise.resolve(all([failLater(), undefined, slow.promise])).finally(() => { done = true; });
  pending.catch(() => undefined);
  await settle();
  expect(done).toBe(false);
  slow.fail(new Error("second"));
  await expect(pending).rejects.toThrow("later");
  expect(all([undefined, undefined])).toBeUndefined();
});
