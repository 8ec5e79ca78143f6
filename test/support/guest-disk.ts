import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { DiskError } from "../../disk/errors.ts";
import type { Pending, Storage } from "../../disk/storage.ts";

export type Operation = "read" | "write" | "zero" | "discard" | "flush";
export interface Call { readonly operation: Operation; readonly offset: number; readonly length: number; readonly keep?: boolean | undefined }

const PAGE = 65536;

/**
 * A disk for a guest under test: writes stay in memory over a raw file or bytes. It logs every call, answers at
 * once, later or now and then later, and fails what it is told to.
 */
export class GuestDisk implements Storage {
  readOnly = false;
  readonly calls: Call[] = [];
  /** `mixed`: every third call is answered later. */
  answers: "sync" | "async" | "mixed" = "sync";
  fails: (call: Call) => boolean = () => false;
  /** Calls whose answer waits until `release`. */
  holds: (call: Call) => boolean = () => false;
  readonly name: string;
  readonly size: number;
  readonly #pages = new Map<number, Uint8Array>();
  readonly #base: Uint8Array | undefined;
  readonly #file: number | undefined;
  #held: (() => void)[] = [];
  #count = 0;

  /** Over a file's path, or bytes, or `size` zeros. */
  constructor(base: string | Uint8Array | number) {
    this.name = typeof base === "string" ? base : "memory";
    if (typeof base === "string") this.#file = openSync(base, "r");
    else if (base instanceof Uint8Array) this.#base = base;
    this.size = this.#file === undefined ? (base instanceof Uint8Array ? base.length : Number(base)) : fstatSync(this.#file).size;
  }

  count(operation: Operation): number {
    return this.calls.filter((call) => call.operation === operation).length;
  }

  /** Answers what was held. */
  release(): void {
    this.holds = () => false;
    for (const answer of this.#held.splice(0)) answer();
  }

  get held(): number {
    return this.#held.length;
  }

  read(offset: number, into: Uint8Array): Pending {
    return this.#answer({ operation: "read", offset, length: into.length }, () => {
      this.#each(offset, into.length, (page, at, from, length) => {
        into.set(this.#page(page, false).subarray(at, at + length), from);
      });
    });
  }

  write(offset: number, from: Uint8Array): Pending {
    return this.#answer({ operation: "write", offset, length: from.length }, () => {
      this.#each(offset, from.length, (page, at, start, length) => {
        this.#page(page, true).set(from.subarray(start, start + length), at);
      });
    });
  }

  zero(offset: number, length: number, keep?: boolean): Pending {
    return this.#answer({ operation: "zero", offset, length, keep }, () => this.#clear(offset, length));
  }

  discard(offset: number, length: number): Pending {
    return this.#answer({ operation: "discard", offset, length }, () => this.#clear(offset, length));
  }

  flush(): Pending {
    return this.#answer({ operation: "flush", offset: 0, length: 0 }, () => {});
  }

  truncate(): Pending {
    throw new DiskError("unsupported", "a guest does not truncate");
  }

  close(): Pending {
    if (this.#file !== undefined) closeSync(this.#file);
  }

  #answer(call: Call, work: () => void): Pending {
    this.calls.push(call);
    const finish = (): void => {
      if (this.fails(call)) throw new DiskError("io", `injected failure of ${call.operation}`, { path: this.name, offset: call.offset });
      if (this.readOnly && call.operation !== "read" && call.operation !== "flush") throw new DiskError("read-only", "not writable");
      work();
    };
    if (this.holds(call)) return new Promise<void>((resolve) => this.#held.push(resolve)).then(finish);
    const later = this.answers === "async" || (this.answers === "mixed" && ++this.#count % 3 === 0);
    return later ? new Promise<void>((resolve) => setImmediate(resolve)).then(finish) : finish();
  }

  #clear(offset: number, length: number): void {
    this.#each(offset, length, (page, at, _from, count) => {
      this.#page(page, true).fill(0, at, at + count);
    });
  }

  #each(offset: number, length: number, visit: (page: number, at: number, from: number, length: number) => void): void {
    for (let from = 0; from < length;) {
      const at = (offset + from) % PAGE;
      const count = Math.min(PAGE - at, length - from);
      visit(Math.floor((offset + from) / PAGE), at, from, count);
      from += count;
    }
  }

  #page(index: number, keep: boolean): Uint8Array {
    const kept = this.#pages.get(index);
    if (kept) return kept;
    const page = new Uint8Array(PAGE);
    if (this.#file !== undefined) readSync(this.#file, page, 0, PAGE, index * PAGE);
    else if (this.#base) page.set(this.#base.subarray(index * PAGE, (index + 1) * PAGE));
    if (keep) this.#pages.set(index, page);
    return page;
  }
}
