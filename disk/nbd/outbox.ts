import type { BufferPool } from "./pool.ts";
import type { Wire } from "./wire.ts";

/** Collects replies in one buffer, so that all that are ready at the same time go out in one system call. */
export class Outbox {
  #slab: Uint8Array | undefined;
  #used = 0;
  #soon = false;

  constructor(readonly wire: Wire, readonly pool: BufferPool) {}

  /** Where the next `size` bytes go, in `slab`. Nothing is sent of them before `commit`. */
  reserve(size: number): number {
    if (this.#slab !== undefined && this.#used + size <= this.#slab.length) return this.#used;
    this.flush();
    this.#slab = this.pool.take(size);
    return this.#used;
  }

  /** The buffer of the last `reserve`. */
  get slab(): Uint8Array {
    if (this.#slab === undefined) throw new Error("nothing is reserved");
    return this.#slab;
  }

  /** The `size` bytes last reserved are complete. They go out with `flush`, or at the end of this turn at the latest. */
  commit(size: number): void {
    this.#used += size;
    if (this.#soon) return;
    this.#soon = true;
    void Promise.resolve().then(() => {
      this.#soon = false;
      this.flush();
    });
  }

  /** The bytes last reserved are not complete yet: their buffer is the caller's from now on. `sendOwn` sends them, or the pool takes them. */
  detach(): Uint8Array {
    const { slab } = this, used = this.#used;
    this.#slab = undefined;
    this.#used = 0;
    if (used > 0) this.wire.send(slab.subarray(0, used));
    return slab;
  }

  /** Sends `size` bytes at `at` of a buffer of the pool, which gets it back. */
  sendOwn(buffer: Uint8Array, at: number, size: number): void {
    this.flush();
    this.wire.send(buffer.subarray(at, at + size), () => { this.pool.give(buffer); });
  }

  flush(): void {
    const slab = this.#slab, used = this.#used;
    if (slab === undefined) return;
    this.#slab = undefined;
    this.#used = 0;
    if (used > 0) this.wire.send(slab.subarray(0, used), () => { this.pool.give(slab); });
    else this.pool.give(slab);
  }
}
