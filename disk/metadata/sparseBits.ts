const FULL = "full";

/** Some of very many bits, in pages; bit i of a page is bit i % 8 of its byte i / 8. A page with all bits set takes no memory. */
export class SparseBits {
  readonly #pages = new Map<number, Uint8Array | typeof FULL>();
  readonly #perPage: number;

  constructor(readonly pageBytes: number) {
    this.#perPage = pageBytes * 8;
  }

  /** Sets the bits `[first, end)`. */
  set(first: number, end: number): void {
    while (first < end) {
      const page = Math.floor(first / this.#perPage), start = page * this.#perPage, to = Math.min(end, start + this.#perPage);
      if (to - first === this.#perPage) this.#pages.set(page, FULL);
      else if (this.#pages.get(page) !== FULL) fill(this.#bytes(page), first - start, to - start, true);
      first = to;
    }
  }

  /** Clears all bits from `first` on. */
  cut(first: number): void {
    const page = Math.floor(first / this.#perPage), at = first - page * this.#perPage;
    for (const index of this.#pages.keys()) if (index > page || (index === page && at === 0)) this.#pages.delete(index);
    if (this.#pages.has(page)) fill(this.#bytes(page), at, this.#perPage, false);
  }

  has(page: number): boolean {
    return this.#pages.has(page);
  }

  /** Sets in `into`, the bits of page `page`, all that are set here. */
  addTo(page: number, into: Uint8Array): void {
    const bytes = this.#pages.get(page);
    if (bytes === FULL) into.fill(0xff);
    else bytes?.forEach((byte, at) => { into[at] = (into[at] ?? 0) | byte; });
  }

  #bytes(page: number): Uint8Array {
    const known = this.#pages.get(page);
    if (known instanceof Uint8Array) return known;
    const bytes = new Uint8Array(this.pageBytes).fill(known === FULL ? 0xff : 0);
    this.#pages.set(page, bytes);
    return bytes;
  }
}

/** Sets or clears the bits `[first, end)` of `bytes`. */
export function fill(bytes: Uint8Array, first: number, end: number, on: boolean): void {
  const one = (bit: number): void => {
    const at = bit >> 3, mask = 1 << (bit & 7);
    bytes[at] = on ? (bytes[at] ?? 0) | mask : (bytes[at] ?? 0) & ~mask;
  };
  for (; first < end && (first & 7) !== 0; first++) one(first);
  for (; first < end && (end & 7) !== 0; end--) one(end - 1);
  bytes.fill(on ? 0xff : 0, first >> 3, end >> 3);
}

/** The first bit of `bytes` from `from` on that is `on`, or `end`. */
export function find(bytes: Uint8Array, from: number, end: number, on: boolean): number {
  const none = on ? 0 : 0xff;
  for (let bit = from; bit < end;) {
    const byte = bytes[bit >> 3] ?? 0;
    if ((bit & 7) === 0 && byte === none) bit += 8;
    else if (((byte >> (bit & 7)) & 1) === (on ? 1 : 0)) return bit;
    else bit++;
  }
  return end;
}
