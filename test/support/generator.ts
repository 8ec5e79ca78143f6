/** A small seeded generator (sfc32): the same seed gives the same test on every machine. Not for secrets. */
export class Random {
  #a = 0x9e3779b9;
  #b = 0x243f6a88;
  #c: number;
  #counter = 1;

  constructor(readonly seed: number) {
    this.#c = seed >>> 0;
    for (let i = 0; i < 12; i++) this.u32();
  }

  /** An integer from 0 to 2^32 - 1. */
  u32(): number {
    const sum = (this.#a + this.#b + this.#counter++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** From 0 up to, not including, 1. */
  float(): number {
    return this.u32() / 2 ** 32;
  }

  /** An integer from 0 to `n - 1`; `n` from 1 to 2^53. */
  int(n: number): number {
    return n <= 2 ** 32 ? Math.floor(this.float() * n) : ((this.u32() & 0x1fffff) * 2 ** 32 + this.u32()) % n;
  }

  bytes(n: number): Uint8Array<ArrayBuffer> {
    const words = new Uint32Array(Math.ceil(n / 4));
    for (let i = 0; i < words.length; i++) words[i] = this.u32();
    return new Uint8Array(words.buffer, 0, n);
  }

  /** `n` bytes with the repetitions that real files have, so that they compress. */
  text(n: number): Uint8Array<ArrayBuffer> {
    const words = Array.from({ length: 40 }, () => this.bytes(2 + this.int(9)));
    const bytes = new Uint8Array(n);
    for (let at = 0; at < n;) {
      const word = this.pick(words).subarray(0, n - at);
      bytes.set(word, at);
      at += word.length;
    }
    return bytes;
  }

  pick<T>(list: readonly T[]): T {
    if (list.length === 0) throw new RangeError("nothing to pick from");
    return list[this.int(list.length)] as T;
  }

  /** True with probability `p`. */
  chance(p: number): boolean {
    return this.float() < p;
  }
}
