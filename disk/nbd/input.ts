/** Bytes that arrived and wait to be understood. */
export class Input {
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;

  /** How many bytes there are. */
  get length(): number {
    return this.#bytes.length - this.#start;
  }

  /** Puts `chunk` behind what is there. It is not copied if nothing was: see `keep`. */
  push(chunk: Uint8Array): void {
    if (this.length === 0) {
      this.#bytes = chunk;
      this.#start = 0;
      return;
    }
    const all = new Uint8Array(this.length + chunk.length);
    all.set(this.#bytes.subarray(this.#start));
    all.set(chunk, this.length);
    this.#bytes = all;
    this.#start = 0;
  }

  /** Copies what is left, so that the last chunk is its owner's again. */
  keep(): void {
    // Not `slice`: that of Node's Buffer copies nothing.
    this.#bytes = new Uint8Array(this.#bytes.subarray(this.#start));
    this.#start = 0;
  }

  u16(at: number): number {
    const i = this.#start + at;
    return ((this.#bytes[i] ?? 0) << 8) | (this.#bytes[i + 1] ?? 0);
  }

  u32(at: number): number {
    return this.u16(at) * 65536 + this.u16(at + 2);
  }

  /** An offset or size; inexact from 2^53 on, where no caller takes it for one. */
  u64(at: number): number {
    return this.u32(at) * 2 ** 32 + this.u32(at + 4);
  }

  skip(count: number): void {
    this.#start += count;
  }

  /** The next `count` bytes, of which there must be so many; not a copy. */
  take(count: number): Uint8Array {
    const taken = this.#bytes.subarray(this.#start, this.#start + count);
    this.#start += count;
    return taken;
  }
}
