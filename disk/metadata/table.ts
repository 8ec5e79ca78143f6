import type { Storage } from "../storage.ts";
import { read, write, type Task } from "../task.ts";

/** Changed bytes are written back in whole sectors. */
const SECTOR = 512;

/** A piece of metadata, kept as the bytes it is on disk; entries are decoded where they are used. */
export class Table {
  readonly view: DataView;
  #dirtyFrom = Infinity;
  #dirtyTo = 0;
  /** Used since the cache last looked for something to drop. */
  used = true;
  /** Where a second copy stands, which every change goes to as well; `undefined`: there is none. */
  copyAt: number | undefined;

  /** `at`: where it stands in the file, in bytes. */
  constructor(public at: number, readonly bytes: Uint8Array) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get dirty(): boolean {
    return this.#dirtyFrom < this.#dirtyTo;
  }

  /** Bytes `[from, to)` were changed. */
  touch(from = 0, to = this.bytes.length): void {
    this.#dirtyFrom = Math.min(this.#dirtyFrom, from - (from % SECTOR));
    this.#dirtyTo = Math.min(this.bytes.length, Math.max(this.#dirtyTo, Math.ceil(to / SECTOR) * SECTOR));
  }

  /** Writes what was changed. It stays dirty until `clean`, which the caller calls after the barrier. */
  *writeBack(file: Storage): Task {
    if (!this.dirty) return;
    const changed = this.bytes.subarray(this.#dirtyFrom, this.#dirtyTo);
    yield write(file, this.at + this.#dirtyFrom, changed);
    if (this.copyAt !== undefined) yield write(file, this.copyAt + this.#dirtyFrom, changed);
  }

  clean(): void {
    this.#dirtyFrom = Infinity;
    this.#dirtyTo = 0;
  }
}

/**
 * The resident tables of one kind and one image, by their index, bounded in bytes. Tables are changed only while
 * no other changing task of the image runs; loads may run beside. A dirty table is never dropped: when too much is
 * dirty (`full`) the owner runs its whole ordered flush, then calls `clean`.
 */
export class TableCache {
  readonly #tables = new Map<number, Table>();
  readonly #dirty = new Map<number, Table>();
  /** Loads under way, and who waits for them. */
  readonly #loading = new Map<number, (() => void)[]>();
  readonly #capacity: number;

  /** `limit`: bytes for all tables; at least four tables are kept. */
  constructor(readonly file: Storage, readonly tableSize: number, limit: number) {
    this.#capacity = Math.max(4, Math.floor(limit / tableSize));
  }

  /** The table if it is resident. */
  get(index: number): Table | undefined {
    const table = this.#tables.get(index);
    if (table !== undefined) table.used = true;
    return table;
  }

  /** Whether anything has to be written back. */
  get dirty(): boolean {
    return this.#dirty.size > 0;
  }

  /** Whether so much is dirty that the owner must flush before it changes more. */
  get full(): boolean {
    return this.#dirty.size * 2 >= this.#capacity;
  }

  /** The table, read from `at` if it is not resident. `check` sees it before anyone else and may throw. */
  *load(index: number, at: number, check?: (table: Table) => void): Task<Table> {
    for (;;) {
      const resident = this.get(index);
      if (resident !== undefined) return resident;
      const waiters = this.#loading.get(index);
      if (waiters === undefined) break;
      yield { op: "wait", start: () => new Promise<void>((resolve) => { waiters.push(resolve); }) };
    }
    const waiters: (() => void)[] = [];
    this.#loading.set(index, waiters);
    try {
      const table = new Table(at, new Uint8Array(this.tableSize));
      yield read(this.file, at, table.bytes);
      check?.(table);
      this.#insert(index, table);
      return table;
    } finally {
      this.#loading.delete(index);
      for (const resume of waiters) resume();
    }
  }

  /** A new table, of zeros, that will stand at `at`; all of it is dirty. */
  create(index: number, at: number): Table {
    const table = new Table(at, new Uint8Array(this.tableSize));
    table.touch();
    this.modify(index, table);
    return table;
  }

  /** `table` (from `load`) was or is about to be changed: it stays resident until it is written back. */
  modify(index: number, table: Table): void {
    this.#dirty.set(index, table);
    if (this.#tables.get(index) !== table) this.#insert(index, table);
  }

  /** Forgets all tables: what they told of is gone. None may be loading. */
  clear(): void {
    this.#tables.clear();
    this.#dirty.clear();
  }

  /** Forgets a table that was made in vain. */
  drop(index: number): void {
    this.#tables.delete(index);
    this.#dirty.delete(index);
  }

  /** In the file's order. */
  get dirtyTables(): readonly Table[] {
    return [...this.#dirty.values()].toSorted((a, b) => a.at - b.at);
  }

  /** Writes every dirty table, in the file's order. They stay dirty until `clean`. */
  *writeBack(): Task {
    for (const table of this.dirtyTables) yield* table.writeBack(this.file);
  }

  /** What `writeBack` wrote is durable. */
  clean(): void {
    for (const table of this.#dirty.values()) table.clean();
    this.#dirty.clear();
  }

  #insert(index: number, table: Table): void {
    if (this.#tables.size >= this.#capacity) this.#evict();
    this.#tables.set(index, table);
  }

  /** Second chance: drops the first clean table that was not used since the last round. All dirty: drops none. */
  #evict(): void {
    let tries = this.#tables.size * 2;
    for (const [index, table] of this.#tables) {
      if (tries-- === 0) return;
      this.#tables.delete(index);
      if (!table.used && !this.#dirty.has(index)) return;
      table.used = false;
      this.#tables.set(index, table);
    }
  }
}
