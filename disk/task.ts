import type { Pending, Storage } from "./storage.ts";

/** One I/O request. It carries its own buffer, so a `yield` has no result to type. */
export type Step =
  | { readonly op: "read"; readonly on: Storage; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly op: "write"; readonly on: Storage; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly op: "zero"; readonly on: Storage; readonly offset: number; readonly length: number; readonly keep: boolean }
  | { readonly op: "discard"; readonly on: Storage; readonly offset: number; readonly length: number }
  | { readonly op: "truncate"; readonly on: Storage; readonly size: number }
  | { readonly op: "flush"; readonly on: Storage; readonly barrier: string }
  | { readonly op: "close"; readonly on: Storage }
  | { readonly op: "wait"; readonly start: () => Pending };

/**
 * A multi-step disk operation: an ordinary function that yields where it needs I/O. Written once, it runs on
 * storages that answer synchronously and on those that do not.
 */
export type Task<T = void> = Generator<Step, T, void>;

export const read = (on: Storage, offset: number, bytes: Uint8Array): Step => ({ op: "read", on, offset, bytes });
export const write = (on: Storage, offset: number, bytes: Uint8Array): Step => ({ op: "write", on, offset, bytes });
export const zero = (on: Storage, offset: number, length: number, keep = false): Step => ({ op: "zero", on, offset, length, keep });
export const discard = (on: Storage, offset: number, length: number): Step => ({ op: "discard", on, offset, length });
export const truncate = (on: Storage, size: number): Step => ({ op: "truncate", on, size });
/** `barrier` says what must not reach the storage before what: the crash tests remove each barrier by its name. */
export const flush = (on: Storage, barrier: string): Step => ({ op: "flush", on, barrier });
export const close = (on: Storage): Step => ({ op: "close", on });
/** Anything else that may take time: another task of ours, or a promise. */
export const wait = (start: () => Pending): Step => ({ op: "wait", start });

function start(step: Step): Pending {
  switch (step.op) {
    case "read": return step.on.read(step.offset, step.bytes);
    case "write": return step.on.write(step.offset, step.bytes);
    case "zero": return step.on.zero(step.offset, step.length, step.keep);
    case "discard": return step.on.discard(step.offset, step.length);
    case "truncate": return step.on.truncate(step.size);
    case "flush": return step.on.flush(step.barrier);
    case "close": return step.on.close();
    case "wait": return step.start();
  }
}

/** Runs `task` synchronously for as long as its storages answer synchronously; from the first that does not, asynchronously. */
export function run<T>(task: Task<T>): T | Promise<T> {
  let next = task.next();
  while (!next.done) {
    let pending: Pending;
    try {
      pending = start(next.value);
    } catch (error) {
      next = task.throw(error);
      continue;
    }
    if (pending) return runLater(task, pending);
    next = task.next();
  }
  return next.value;
}

async function runLater<T>(task: Task<T>, first: Promise<void>): Promise<T> {
  let pending: Pending = first;
  for (;;) {
    let failure: { readonly error: unknown } | undefined;
    if (pending) {
      try {
        await pending;
      } catch (error) {
        failure = { error };
      }
    }
    const next: IteratorResult<Step, T> = failure ? task.throw(failure.error) : task.next();
    if (next.done) return next.value;
    try {
      pending = start(next.value);
    } catch (error) {
      pending = Promise.reject(error);
    }
  }
}

/** Runs tasks one at a time, in order. An idle queue starts a task at once, so it can still finish synchronously. */
export class TaskQueue {
  #last: Promise<unknown> | undefined;

  run<T>(makeTask: () => Task<T>): T | Promise<T> {
    const result = this.#last ? this.#last.then(() => run(makeTask())) : run(makeTask());
    if (!(result instanceof Promise)) return result;
    const settled: Promise<unknown> = result.then(() => undefined, () => undefined).then(() => {
      if (this.#last === settled) this.#last = undefined;
    });
    this.#last = settled;
    return result;
  }
}

/** Waits for something of ours that answers with a value, at once or later. */
export function* call<T>(begin: () => T | Promise<T>): Task<T> {
  let result: { readonly value: T } | undefined;
  yield wait(() => {
    const answer = begin();
    if (answer instanceof Promise) return answer.then((value) => { result = { value }; });
    result = { value: answer };
    return;
  });
  if (result === undefined) throw new Error("a wait ended without its answer");
  return result.value;
}
