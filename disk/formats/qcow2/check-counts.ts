import { DiskError } from "../../errors.ts";

/** Clusters a page: counters are kept only near clusters that somebody references. */
export const PAGE_BITS = 12, PAGE = 2 ** PAGE_BITS;
/** Where a page's counters end. */
export const FULL = 0xffff;

/** Bounds what a check may allocate and read, whatever the image claims. In bytes. */
export class Budget {
  #memory: number;
  #reads: number;

  constructor(memory: number, reads: number, readonly path: string) {
    this.#memory = memory;
    this.#reads = reads;
  }

  allocate(bytes: number): void {
    this.#memory -= bytes;
    if (this.#memory < 0) throw this.#exceeded("counting its references takes more memory than the check may use (limits.memory)");
  }

  read(bytes: number): void {
    this.#reads -= bytes;
    if (this.#reads < 0) throw this.#exceeded("its tables take more bytes than the check may read (limits.reads)");
  }

  #exceeded(what: string): DiskError {
    return new DiskError("unsupported", `the image cannot be checked: ${what}`, { path: this.path, format: "qcow2", operation: "check" });
  }
}

/** A counter for every cluster, by its number; all begin at 0. */
export class Counts {
  readonly #pages: (Uint16Array | undefined)[];
  /** What exceeds a page's 16 bits. */
  readonly #more = new Map<number, number>();

  constructor(readonly clusters: number, readonly budget: Budget) {
    this.#pages = Array.from({ length: Math.ceil(clusters / PAGE) });
  }

  get pages(): number {
    return this.#pages.length;
  }

  /** The counters of page `index`, each `FULL` at most; `undefined`: all are 0. */
  page(index: number): Uint16Array | undefined {
    return this.#pages[index];
  }

  /** The counters of page `index`, for a loop of its own: one that would reach 65535 is counted by `add`. */
  own(index: number): Uint16Array {
    return this.#pages[index] ?? this.#newPage(index);
  }

  get(cluster: number): number {
    const count = this.#pages[cluster >>> PAGE_BITS]?.[cluster & (PAGE - 1)] ?? 0;
    return count === FULL ? FULL + (this.#more.get(cluster) ?? 0) : count;
  }

  /** `cluster` is below `clusters`; `times` may be negative. */
  add(cluster: number, times: number): void {
    const page = this.own(cluster >>> PAGE_BITS);
    const at = cluster & (PAGE - 1), old = page[at] ?? 0, count = old + times;
    if (old < FULL && count < FULL) page[at] = count;
    else this.#set(page, cluster, this.get(cluster) + times);
  }

  #set(page: Uint16Array, cluster: number, count: number): void {
    page[cluster & (PAGE - 1)] = Math.min(count, FULL);
    if (count > FULL) this.#more.set(cluster, count - FULL);
    else this.#more.delete(cluster);
  }

  #newPage(index: number): Uint16Array {
    this.budget.allocate(PAGE * 2);
    return (this.#pages[index] = new Uint16Array(PAGE));
  }
}

/** A few bits for every cluster, by its number. */
export class Marks {
  readonly #pages: (Uint8Array | undefined)[];

  constructor(readonly clusters: number, readonly budget: Budget) {
    this.#pages = Array.from({ length: Math.ceil(clusters / PAGE) });
  }

  /** Whether any of `bits` is set; false beyond the last cluster. */
  has(cluster: number, bits: number): boolean {
    return cluster < this.clusters && ((this.#pages[cluster >>> PAGE_BITS]?.[cluster & (PAGE - 1)] ?? 0) & bits) !== 0;
  }

  /** The marks of page `index`. */
  page(index: number): Uint8Array | undefined {
    return this.#pages[index];
  }

  /** The marks of page `index`, to be set. */
  own(index: number): Uint8Array {
    const page = this.#pages[index];
    if (page !== undefined) return page;
    this.budget.allocate(PAGE);
    return (this.#pages[index] = new Uint8Array(PAGE));
  }

  set(cluster: number, bits: number): void {
    const page = this.own(cluster >>> PAGE_BITS);
    page[cluster & (PAGE - 1)] = (page[cluster & (PAGE - 1)] ?? 0) | bits;
  }
}
