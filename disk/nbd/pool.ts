/** Buffers for replies and for what clients write, used again: fresh memory costs as much as copying it twice. */
export class BufferPool {
  readonly #free = new Map<number, Uint8Array[]>();
  #idle = 0;

  /** `least` and `most`: the smallest buffer there is, and how many bytes are kept for later. A power of two each. */
  constructor(readonly least = 256 << 10, readonly most = 16 << 20) {}

  /** A buffer of at least `size` bytes, with anything in it. */
  take(size: number): Uint8Array {
    let length = this.least;
    while (length < size) length *= 2;
    const buffer = this.#free.get(length)?.pop();
    if (buffer === undefined) return new Uint8Array(length);
    this.#idle -= length;
    return buffer;
  }

  /** Gives back what `take` answered; nobody may look at it any more. */
  give(buffer: Uint8Array): void {
    if (this.#idle + buffer.length > this.most) return;
    const free = this.#free.get(buffer.length);
    if (free === undefined) this.#free.set(buffer.length, [buffer]);
    else free.push(buffer);
    this.#idle += buffer.length;
  }
}
