import { Buffer } from "node:buffer";
import type { Disk } from "../disk.ts";
import { type Task, wait } from "../task.ts";
import type { Meter } from "./progress.ts";
import { denseImages, entryAt } from "./ranges.ts";

export interface CopyOptions {
  /** How long zeros must be to be left out, in bytes; 0: everything is written. */
  readonly sparse: number;
  /** The target reads as zeros already. */
  readonly targetIsZero: boolean;
  /** Only what the source's own top image has, as if the target stood on the same backing file. */
  readonly topOnly: boolean;
}

const CHUNK = 2 << 20;

/** Copies the sources, one behind the other, to the target's beginning: in order, in large pieces, and only what has data. */
export function* copyDisks(sources: readonly Disk[], target: Disk, options: CopyOptions, meter: Meter): Task {
  const total = sources.reduce((sum, { size }) => sum + size, 0), copy = new Copy(target, options);
  let start = 0;
  meter.update(0, total);
  for (const source of sources) {
    const base = start;
    yield* copy.add(source, base, (done) => { meter.update(base + done, total); });
    start += source.size;
  }
  meter.update(1, 1);
}

type Kind = "data" | "zero" | "backing";
interface Piece { readonly kind: Kind; readonly length: number }

class Copy {
  /** Zeros are looked for in aligned pieces of this size. */
  readonly #unit: number;
  readonly #buffer: Buffer;
  readonly #zeros: Buffer;

  constructor(readonly target: Disk, readonly options: CopyOptions) {
    this.#unit = Math.max(2 ** Math.floor(Math.log2(options.sparse || CHUNK)), target.chain[0].blockSize);
    this.#buffer = Buffer.allocUnsafe(Math.max(CHUNK, this.#unit));
    this.#zeros = Buffer.alloc(this.#buffer.length);
  }

  *add(source: Disk, base: number, progress: (done: number) => void): Task {
    const dense = denseImages(source.chain);
    for (let offset = 0; offset < source.size;) {
      const piece = yield* this.#piece(source, offset, dense);
      if (piece.kind === "data") yield* this.#data(source, offset, base + offset, piece.length);
      if (piece.kind === "zero") yield* this.#zero(base + offset, piece.length);
      offset += piece.length;
      progress(offset);
    }
  }

  /** What begins at `offset`, and how much of it to do at once. */
  *#piece(source: Disk, offset: number, dense: readonly boolean[]): Task<Piece> {
    const { kind, length } = yield* this.#range(source, offset, dense);
    if (kind === "backing" || (kind === "zero" && this.options.sparse > 0)) return { kind, length };
    // To the end of the target's block: its rest would be read and written anyway.
    const block = this.target.chain[0].blockSize, whole = Math.min(Math.ceil((offset + length) / block) * block, source.size) - offset;
    return { kind, length: Math.min(kind === "data" ? whole : length, this.#buffer.length - (offset % this.#buffer.length)) };
  }

  *#range(source: Disk, offset: number, dense: readonly boolean[]): Task<Piece> {
    const [top, below] = source.chain, rest = source.size - offset;
    if (!this.options.topOnly || below === undefined) {
      const { zero, length } = yield* entryAt(source.chain, offset, rest, dense);
      return { kind: zero ? "zero" : "data", length };
    }
    const { zero, present, length } = yield* entryAt([top], offset, rest, dense);
    if (present) return { kind: zero ? "zero" : "data", length };
    return offset < below.size ? { kind: "backing", length: Math.min(length, below.size - offset) } : { kind: "zero", length };
  }

  *#data(source: Disk, offset: number, to: number, length: number): Task {
    const bytes = this.#buffer.subarray(0, length);
    yield wait(() => source.read(offset, bytes));
    if (this.options.sparse === 0) return yield wait(() => this.target.write(to, bytes));
    for (let at = 0; at < length;) {
      const zero = this.#isZero(bytes, to, at), start = at;
      do at = this.#unitEnd(to, at, length); while (at < length && this.#isZero(bytes, to, at) === zero);
      const run = bytes.subarray(start, at);
      if (zero) yield* this.#zero(to + start, run.length);
      else yield wait(() => this.target.write(to + start, run));
    }
  }

  *#zero(to: number, length: number): Task {
    if (this.options.sparse === 0) yield wait(() => this.target.write(to, this.#zeros.subarray(0, length)));
    else if (!this.options.targetIsZero) yield wait(() => this.target.zero(to, length));
  }

  /** Whether the unit that `at` is in has only zeros from there on. */
  #isZero(bytes: Buffer, to: number, at: number): boolean {
    const end = this.#unitEnd(to, at, bytes.length);
    return bytes.compare(this.#zeros, 0, end - at, at, end) === 0;
  }

  #unitEnd(to: number, at: number, length: number): number {
    return Math.min(length, at + this.#unit - ((to + at) % this.#unit));
  }
}
