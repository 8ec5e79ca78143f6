/** A range of a file, in sectors. */
export type SectorRange = readonly [start: number, end: number];

/**
 * What of a file is metadata, in sectors: the guest's data must never reach it, whatever an entry says. Grain tables
 * are many, and all of one size: only where they begin is kept.
 */
export class Protected {
  /** Tables that were added since, in order. */
  readonly #added: number[] = [];

  /** `tables`: where they begin; sorted in place, and kept. */
  constructor(readonly fixed: readonly SectorRange[], readonly tables: Uint32Array, readonly tableSize: number) {
    tables.sort();
  }

  /** A sector where two of these overlap. */
  twice(): number | undefined {
    const { fixed, tables, tableSize } = this;
    for (let i = 1; i < tables.length; i++) if ((tables[i - 1] ?? 0) + tableSize > (tables[i] ?? 0)) return tables[i];
    const bad = fixed.find(([start, end], i) => this.#inTables(tables, start, end) || fixed.some(([from, to], k) => k < i && from < end && start < to));
    return bad?.[0];
  }

  /** Adds a table behind all others. */
  append(start: number): void {
    this.#added.push(start);
  }

  overlaps(start: number, end: number): boolean {
    return this.fixed.some(([from, to]) => from < end && start < to) || this.#inTables(this.tables, start, end) || this.#inTables(this.#added, start, end);
  }

  #inTables(tables: ArrayLike<number>, start: number, end: number): boolean {
    let low = 0, high = tables.length;
    // The first that begins at or behind `end`; the one before it is the only one that can overlap.
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((tables[middle] ?? 0) < end) low = middle + 1;
      else high = middle;
    }
    return low > 0 && (tables[low - 1] ?? 0) + this.tableSize > start;
  }
}
