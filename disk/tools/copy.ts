import { Buffer } from "node:buffer";
import type { Disk } from "../disk.ts";
import { all, type Pending } from "../storage.ts";
import { run, type Task, wait } from "../task.ts";
import { Buffers } from "./buffers.ts";
import type { Meter } from "./progress.ts";
import type { Range, Sources } from "./sources.ts";

export interface CopyOptions {
  /** How long zeros must be to be left out, in bytes; 0: everything is written. */
  readonly sparse: number;
  /** The target reads as zeros already. */
  readonly targetIsZero: boolean;
  /** Written compressed: the target `packs`. */
  readonly compress: boolean;
  /** How many pieces may be on their way at once. */
  readonly depth: number;
  /** Bytes a second that are written at most; 0: as fast as it goes. */
  readonly rate: number;
}

/** What is read at once, in bytes; what is compressed is on its way for longer, so less. */
const CHUNK = 1 << 20, PACKED_CHUNK = 256 << 10;
/** How many pieces are read at once, where reading takes threads. */
const READ_AHEAD = 3;
/** Milliseconds. */
const PATIENCE = 50;

/**
 * Copies the sources to the target's beginning: in large pieces, and only what has data. While a piece is compressed
 * or written on another thread the next ones are read.
 */
export function* copyDisks(sources: Sources, target: Disk, options: CopyOptions, meter: Meter): Task {
  const copy = new Copy(sources, target, options);
  meter.update(0, sources.size);
  try {
    for (let offset = 0; offset < sources.size;) {
      offset += yield* copy.step(offset);
      meter.update(offset, sources.size);
    }
    yield* copy.settle();
  } finally {
    yield* copy.abandon();
  }
  meter.update(1, 1);
}

/** A piece that is being read. */
interface Reading { readonly offset: number; readonly buffer: Buffer; readonly bytes: Buffer; readonly pending: Pending }

class Copy {
  readonly #buffers: Buffers;
  /** In the order in which they are to be written. */
  readonly #reading: Reading[] = [];
  readonly #ahead: number;
  /** What is written whole. */
  readonly #block: number;
  /** Zeros are looked for in aligned pieces of this size. */
  readonly #unit: number;
  readonly #zeros: Buffer;
  readonly #began = performance.now();
  /** The range that was found last, and where it ends. */
  #range: Range = { kind: "data", length: 0 };
  #end = 0;
  #written = 0;

  constructor(readonly sources: Sources, readonly target: Disk, readonly options: CopyOptions) {
    const { sparse, compress, depth } = options, chunk = compress ? PACKED_CHUNK : CHUNK;
    this.#block = compress ? target.packSize : target.chain[0].writeSize ?? target.chain[0].blockSize;
    this.#unit = compress ? this.#block : Math.max(2 ** Math.floor(Math.log2(sparse || chunk)), this.#block);
    this.#buffers = new Buffers(Math.max(chunk, this.#unit), depth);
    this.#ahead = Math.min(depth, READ_AHEAD);
    this.#zeros = Buffer.alloc(this.#buffers.size);
  }

  /** Copies what begins at `offset`. Answers how much that was. */
  *step(offset: number): Task<number> {
    const { kind, length } = yield* this.#piece(offset);
    if (kind === "zero" && this.options.sparse > 0) {
      if (!this.options.targetIsZero) yield wait(() => this.target.zero(offset, length));
    } else if (kind !== "backing") yield* this.#data(offset, length, kind === "zero");
    return length;
  }

  /** What begins at `offset`, and how much of it to do at once. */
  *#piece(offset: number): Task<Range> {
    if (offset >= this.#end) {
      this.#range = yield* this.sources.range(offset);
      this.#end = offset + this.#range.length;
    }
    const { kind } = this.#range, { size } = this.sources, rest = this.#end - offset, block = this.#block;
    // To the end of the target's block: its rest would be read and written anyway.
    const whole = Math.min(Math.ceil(this.#end / block) * block, size) - offset, most = this.#buffers.size - (offset % this.#buffers.size);
    if (kind === "data") return { kind, length: Math.min(whole, most) };
    // A block that is compressed is compressed whole.
    if (this.options.compress && this.#end < size && rest % block !== 0) {
      if (rest < block) return { kind: "data", length: Math.min(block, size - offset) };
      return { kind, length: Math.min(rest - (rest % block), kind === "zero" && this.options.sparse === 0 ? most : Infinity) };
    }
    return { kind, length: kind === "zero" && this.options.sparse === 0 ? Math.min(rest, most) : rest };
  }

  /** Waits until all is written. */
  *settle(): Task {
    while (this.#reading.length > 0) yield* this.#writeOldest();
    yield* this.#buffers.settle();
  }

  /** Waits for all that is under way, well or not. */
  *abandon(): Task {
    for (const { buffer, pending } of this.#reading.splice(0)) this.#buffers.give(buffer, pending);
    yield* this.#buffers.abandon();
  }

  /** Reads and writes a piece. Both may go on when this is done. */
  *#data(offset: number, length: number, zero: boolean): Task {
    const buffer = yield* this.#buffers.take(), bytes = buffer.subarray(0, length);
    const pending = zero ? void bytes.fill(0) : run(this.sources.read(offset, bytes));
    pending?.catch(() => undefined); // it is heard when its turn comes
    this.#reading.push({ offset, buffer, bytes, pending });
    while (this.#reading.length > 0 && (!this.#reading[0]?.pending || this.#reading.length >= this.#ahead)) yield* this.#writeOldest();
    yield* this.#pace();
  }

  *#writeOldest(): Task {
    const [oldest] = this.#reading;
    if (oldest === undefined) return;
    const { offset, buffer, bytes, pending } = oldest, started: Pending[] = [];
    yield wait(() => pending);
    this.#reading.shift();
    try {
      this.#writeRuns(offset, bytes, started);
    } finally {
      this.#buffers.give(buffer, all(started));
    }
  }

  #writeRuns(offset: number, bytes: Buffer, started: Pending[]): void {
    for (let at = 0; at < bytes.length;) {
      const start = at, zero = this.#isZero(bytes, offset, at);
      do at = this.#unitEnd(offset, at, bytes.length); while (at < bytes.length && this.#isZero(bytes, offset, at) === zero);
      if (!zero) started.push(this.#write(offset + start, bytes.subarray(start, at)));
      else if (!this.options.targetIsZero) started.push(this.target.zero(offset + start, at - start));
    }
  }

  #write(offset: number, bytes: Buffer): Pending {
    this.#written += bytes.length;
    return this.options.compress ? this.target.writePacked(offset, bytes) : this.target.write(offset, bytes);
  }

  /** Waits until as much could have been written at the rate; in short steps, between which a signal is heard. */
  *#pace(): Task {
    const { rate } = this.options, due = rate === 0 ? 0 : this.#began + (this.#written / rate) * 1000;
    for (let early = due - performance.now(); early > 0; early = due - performance.now()) {
      yield wait(() => new Promise((resolve) => { setTimeout(resolve, Math.min(early, PATIENCE)); }));
    }
  }

  /** Whether the unit that `at` is in has only zeros from there on, and they are to be left out. */
  #isZero(bytes: Buffer, offset: number, at: number): boolean {
    if (bytes[at] !== 0 || this.options.sparse === 0) return false;
    const end = this.#unitEnd(offset, at, bytes.length);
    return bytes.compare(this.#zeros, 0, end - at, at, end) === 0;
  }

  #unitEnd(offset: number, at: number, length: number): number {
    return Math.min(length, at + this.#unit - ((offset + at) % this.#unit));
  }
}
