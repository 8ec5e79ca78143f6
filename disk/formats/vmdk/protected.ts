/** Ranges of a file that hold metadata, in sectors: the guest's data must never reach them, whatever an entry says. */
export class Protected {
  readonly #starts: number[] = [];
  readonly #ends: number[] = [];

  /** Answers a range that begins within another, if any does. */
  static of(ranges: readonly (readonly [start: number, end: number])[]): { readonly areas: Protected; readonly twice: number | undefined } {
    const areas = new Protected();
    let twice: number | undefined;
    for (const [start, end] of ranges.toSorted(([a], [b]) => a - b)) {
      if (areas.overlaps(start, end)) twice ??= start;
      else areas.append(start, end);
    }
    return { areas, twice };
  }

  /** Adds a range behind all others. */
  append(start: number, end: number): void {
    this.#starts.push(start);
    this.#ends.push(end);
  }

  overlaps(start: number, end: number): boolean {
    let low = 0, high = this.#starts.length;
    // The first that begins at or behind `end`; the one before it is the only one that can overlap.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#starts[middle] ?? 0) < end) low = middle + 1;
      else high = middle;
    }
    return low > 0 && (this.#ends[low - 1] ?? 0) > start;
  }
}
