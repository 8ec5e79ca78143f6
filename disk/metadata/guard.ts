import { DiskError } from "../errors.ts";
import type { Task } from "../task.ts";

/** Keeps an image that contradicts itself from being changed any further: more changes could only do more harm. */
export class Guard {
  #corruption: DiskError | undefined;

  /** `mark`: what the format writes into an image that was found corrupt. */
  constructor(readonly mark?: () => Task) {}

  /** No contradiction was found yet. */
  get sound(): boolean {
    return this.#corruption === undefined;
  }

  /** Runs a change, or refuses it with the contradiction that an earlier one found. */
  *change<T>(task: Task<T>): Task<T> {
    if (this.#corruption !== undefined) throw this.#corruption;
    try {
      return yield* task;
    } catch (error) {
      if (error instanceof DiskError && error.kind === "corrupt") {
        this.#corruption = error;
        if (this.mark !== undefined) yield* this.mark();
      }
      throw error;
    }
  }
}
