import { type Task, wait } from "../task.ts";

/** Keeps work to so many bytes a second; 0: as fast as it goes. */
export class Rate {
  readonly #began = performance.now();
  #bytes = 0;

  constructor(readonly limit: number) {}

  /** After `bytes` more were done: waits until they may have been. */
  *spent(bytes: number): Task {
    this.#bytes += bytes;
    const due = this.limit === 0 ? 0 : (this.#bytes / this.limit) * 1000 - (performance.now() - this.#began);
    if (due > 0) yield wait(() => new Promise((resolve) => { setTimeout(resolve, due); }));
  }
}
