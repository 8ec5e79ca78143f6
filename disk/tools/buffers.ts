import { Buffer } from "node:buffer";
import type { Pending } from "../storage.ts";
import { type Task, wait } from "../task.ts";

interface Busy { readonly buffer: Buffer; readonly pending: Promise<void> }

/** Buffers that go round: filled, written from, and free again when that is done. At most `depth` of them, so is the memory. */
export class Buffers {
  readonly #free: Buffer[] = [];
  /** The oldest first. */
  readonly #busy: Busy[] = [];
  #made = 0;

  constructor(readonly size: number, readonly depth: number) {}

  /** One to fill. Fails as the oldest work did, if it did. */
  *take(): Task<Buffer> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#made < this.depth) {
      this.#made++;
      return Buffer.allocUnsafeSlow(this.size);
    }
    return (yield* this.#oldest()) ?? Buffer.allocUnsafeSlow(this.size);
  }

  /** `buffer` is in use until `pending` is done. */
  give(buffer: Buffer, pending: Pending): void {
    if (!pending) {
      this.#free.push(buffer);
      return;
    }
    pending.catch(() => undefined); // it is heard when its turn comes
    this.#busy.push({ buffer, pending });
  }

  /** Waits for all that is under way. Fails with the first failure. */
  *settle(): Task {
    while (this.#busy.length > 0) yield* this.#oldest();
  }

  /** Waits for all that is under way, well or not. */
  *abandon(): Task {
    const all = this.#busy.splice(0).map(({ pending }) => pending);
    if (all.length > 0) yield wait(() => Promise.allSettled(all).then(() => undefined));
  }

  *#oldest(): Task<Buffer | undefined> {
    const oldest = this.#busy.shift();
    if (oldest !== undefined) yield wait(() => oldest.pending);
    return oldest?.buffer;
  }
}
