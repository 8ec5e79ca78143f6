/** Which parts of a read have arrived: a server may send them in any order, but each once, and all. */
export class Coverage {
  #next = 0;
  /** Parts that came out of order. */
  #others: { readonly at: number; readonly size: number }[] | undefined;

  add(at: number, size: number): void {
    if (at === this.#next) this.#next += size;
    else (this.#others ??= []).push({ at, size });
  }

  /** Whether the parts are `length` bytes from 0 on, without overlaps. */
  complete(length: number): boolean {
    let next = this.#next;
    for (const { at, size } of (this.#others ?? []).sort((a, b) => a.at - b.at)) {
      if (at !== next) return false;
      next += size;
    }
    return next === length;
  }
}
