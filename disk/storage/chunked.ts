import { DiskError } from "../errors.ts";
import { all, type Pending, type Storage } from "../storage.ts";
import { ChunkCache } from "./chunkCache.ts";

/** Something read-only that is far away: every request costs much, its length little. */
export interface ChunkSource {
  readonly name: string;
  readonly size: number;
  /** Exactly the `length` bytes at `offset`, all inside `size`, in an array that is the caller's. Rejects with a `DiskError`. */
  fetch(offset: number, length: number): Promise<Uint8Array>;
  /** Ends what is under way: its promises reject. */
  close(): void;
}

/** All in bytes but `parallel`. */
export interface ChunkOptions {
  /** What is fetched and kept at least; the default is the source's. */
  readonly chunkSize?: number;
  /** How much is kept in memory. Default 64 MiB. */
  readonly cacheBytes?: number;
  /** How far a sequential reader is run ahead of; 0: not at all. Default 1 MiB. */
  readonly readaheadBytes?: number;
  /** The largest single request; neighbouring missing chunks are asked for together. Default 1 MiB. */
  readonly requestBytes?: number;
  /** How many requests may be under way at once. Default 4. */
  readonly parallel?: number;
}

/** A request under way, for the chunks from `first` up to, not including, `end`. */
interface Run { readonly first: number; readonly end: number; readonly bytes: Promise<Uint8Array> }

/**
 * A read-only storage over a `ChunkSource`: whole chunks, kept in a bounded cache. What is resident is answered
 * synchronously; requests for one chunk are shared. A read that finds the chunk after the last one begins to
 * read ahead, and the distance doubles with every chunk that the reader then reaches.
 */
export class ChunkedStorage implements Storage {
  readonly readOnly = true;
  readonly name: string;
  readonly size: number;
  readonly chunkSize: number;
  /** What was asked of the source so far, readahead included. */
  readonly traffic = { requests: 0, bytes: 0 };

  readonly #source: ChunkSource;
  readonly #cache: ChunkCache;
  readonly #runs = new Map<number, Run>();
  readonly #runChunks: number;
  readonly #parallel: number;
  #active = 0;
  readonly #waiting: (() => void)[] = [];
  #closed = false;

  readonly #maxWindow: number;
  #window = 0;
  /** Reaching this chunk shows that the reader is sequential. */
  #trigger = -1;
  /** The end of what was asked for ahead of it. */
  #ahead = 0;

  constructor(source: ChunkSource, options: ChunkOptions = {}) {
    const { chunkSize = 256 << 10, cacheBytes = 64 << 20, readaheadBytes = 1 << 20, requestBytes = 1 << 20, parallel = 4 } = options;
    for (const [name, value] of Object.entries({ chunkSize, requestBytes, parallel })) {
      if (!Number.isSafeInteger(value) || value < 1) throw new DiskError("invalid-argument", `${name} must be a positive integer, not ${value}`, { path: source.name });
    }
    this.name = source.name;
    this.size = source.size;
    this.chunkSize = chunkSize;
    this.#source = source;
    this.#cache = new ChunkCache(cacheBytes);
    this.#runChunks = Math.max(1, Math.floor(requestBytes / chunkSize));
    this.#parallel = parallel;
    this.#maxWindow = Math.floor(Math.min(readaheadBytes, cacheBytes / 2) / chunkSize);
  }

  read(offset: number, into: Uint8Array): Pending {
    if (this.#closed) throw this.#closedError();
    const inside = Math.max(0, Math.min(into.length, this.size - offset));
    if (inside < into.length) into.fill(0, inside);
    if (inside === 0) return;
    const first = Math.floor(offset / this.chunkSize);
    const start = offset - first * this.chunkSize;
    const chunk = this.#cache.get(first);
    if (!chunk || start + inside > chunk.length) return this.#gather(offset, into.subarray(0, inside));
    into.set(chunk.subarray(start, start + inside));
    if (first === this.#trigger) this.#readAhead(first, first, false);
  }

  write(offset: number): never {
    throw this.#refusal("write", offset);
  }

  zero(offset: number): never {
    throw this.#refusal("zero", offset);
  }

  discard(offset: number): never {
    throw this.#refusal("discard", offset);
  }

  truncate(size: number): never {
    throw this.#refusal("truncate", size);
  }

  flush(): void {}

  /** Reads under way fail as `io`; the cache is given up. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#source.close();
    this.#cache.clear();
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Gives chunks that were already fetched, from chunk 0 on, to the cache. */
  protected preload(bytes: Uint8Array): void {
    this.#keep(0, bytes);
  }

  /** A read over several chunks, or of chunks that are not resident; `into` lies inside `size`. */
  #gather(offset: number, into: Uint8Array): Pending {
    const first = Math.floor(offset / this.chunkSize);
    const last = Math.floor((offset + into.length - 1) / this.chunkSize);
    const pending: Promise<void>[] = [];
    let missed = false;
    for (let index = first; index <= last;) {
      const chunk = this.#cache.get(index);
      if (chunk) {
        this.#copy(chunk, index++, offset, into);
        continue;
      }
      missed ||= !this.#runs.has(index);
      const run = this.#runs.get(index) ?? this.#request(index, last + 1);
      pending.push(run.bytes.then((bytes) => this.#copy(bytes, run.first, offset, into)));
      index = run.end;
    }
    this.#readAhead(first, last, missed);
    return all(pending);
  }

  /** Copies what `bytes`, the chunks from `index` on, and the read of `into` at `offset` have in common. */
  #copy(bytes: Uint8Array, index: number, offset: number, into: Uint8Array): void {
    const start = index * this.chunkSize - offset;
    const from = Math.max(0, -start);
    into.set(bytes.subarray(from, into.length - start), start + from);
  }

  /** Requests the chunks from `first`, which is missing, up to `end`, or to the next that is not missing, or to the limit. */
  #request(first: number, limit: number): Run {
    let end = first + 1;
    while (end < limit && end - first < this.#runChunks && !this.#cache.has(end) && !this.#runs.has(end)) end++;
    const run: Run = { first, end, bytes: this.#fetch(first * this.chunkSize, Math.min(end * this.chunkSize, this.size) - first * this.chunkSize) };
    for (let index = first; index < end; index++) this.#runs.set(index, run);
    const forget = (): void => {
      for (let index = first; index < end; index++) this.#runs.delete(index);
    };
    void run.bytes.then((bytes) => {
      forget();
      if (!this.#closed) this.#keep(first, bytes);
    }, forget);
    return run;
  }

  async #fetch(offset: number, length: number): Promise<Uint8Array> {
    while (this.#active >= this.#parallel && !this.#closed) await new Promise<void>((resolve) => { this.#waiting.push(resolve); });
    if (this.#closed) throw this.#closedError();
    this.#active++;
    this.traffic.requests++;
    try {
      const bytes = await this.#source.fetch(offset, length);
      this.traffic.bytes += bytes.length;
      if (bytes.length !== length) throw new DiskError("io", `${bytes.length} bytes came instead of ${length}`, { path: this.name, offset, operation: "read" });
      return bytes;
    } finally {
      this.#active--;
      this.#waiting.shift()?.();
    }
  }

  /** Cuts what came into chunks, each with its own buffer, so that dropping one frees it. */
  #keep(first: number, bytes: Uint8Array): void {
    if (bytes.length <= this.chunkSize) return this.#cache.put(first, bytes);
    for (let at = 0, index = first; at < bytes.length; at += this.chunkSize) this.#cache.put(index++, bytes.slice(at, at + this.chunkSize));
  }

  /** The reader is at the chunks `first` to `last`; `missed`: it met some that nobody had asked for. */
  #readAhead(first: number, last: number, missed: boolean): void {
    if (first <= this.#trigger && this.#trigger <= last) {
      this.#window = Math.min(this.#maxWindow, Math.max(1, this.#window * 2));
      const start = Math.max(this.#ahead, last + 1);
      const end = Math.min(start + this.#window, Math.ceil(this.size / this.chunkSize));
      for (let index = start; index < end; index++) {
        if (!this.#cache.has(index) && !this.#runs.has(index)) index = this.#request(index, end).end - 1;
      }
      this.#ahead = end;
      this.#trigger = start;
    } else if (missed) {
      this.#window = 0;
      this.#trigger = this.#ahead = last + 1;
    }
  }

  #closedError(): DiskError {
    return new DiskError("io", "is closed: open it again", { path: this.name, operation: "read" });
  }

  #refusal(operation: string, offset: number): DiskError {
    return new DiskError("read-only", "cannot be changed where it is: put an overlay over it, or copy it", { path: this.name, offset, operation });
  }
}
