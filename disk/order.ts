import type { Pending } from "./storage.ts";

interface Change { readonly start: number; readonly end: number; done: Promise<void> }

/** Overlapping changes complete in the order they were issued; others go side by side. Costs nothing while all is synchronous. */
export class ChangeOrder {
  readonly #inFlight = new Set<Change>();

  /** Starts `change` of `[offset, offset + length)`, at once or after those in flight that overlap it. */
  run(offset: number, length: number, change: () => Pending): Pending {
    const end = offset + length;
    const before = this.#inFlight.size === 0 ? [] : this.#overlapping(offset, end);
    const pending = before.length === 0 ? change() : Promise.all(before).then(change);
    if (!pending) return;
    const entry: Change = { start: offset, end, done: Promise.resolve() };
    const forget = (): void => { this.#inFlight.delete(entry); };
    entry.done = pending.then(forget, forget);
    this.#inFlight.add(entry);
    return pending;
  }

  /** Done when all that are in flight now have ended, well or not. */
  idle(): Pending {
    if (this.#inFlight.size === 0) return;
    return Promise.all([...this.#inFlight].map((change) => change.done)).then(() => undefined);
  }

  #overlapping(start: number, end: number): Promise<void>[] {
    return [...this.#inFlight].filter((change) => change.start < end && start < change.end).map((change) => change.done);
  }
}
