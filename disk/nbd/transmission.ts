import { DiskError } from "../errors.ts";
import type { Pending } from "../storage.ts";
import { flush, read, run, type Task, wait } from "../task.ts";
import { errnoOf } from "./errno.ts";
import type { Export, Extent } from "./export.ts";
import { extents, fill, MOST_EXTENTS, pieces } from "./extents.ts";
import type { Input } from "./input.ts";
import { errorText, put16, put32, put64 } from "./message.ts";
import type { Agreement } from "./negotiation.ts";
import type { Outbox } from "./outbox.ts";
import { CHUNK, Chunk, Command, CommandFlag, DATA_OFFSET, DONE, Errno, MAX_REQUEST, REQUEST, REQUEST_MAGIC, SIMPLE_REPLY } from "./protocol.ts";
import { blockStatusReply, type Cookie, piecesSize, putChunk, putPieces, putSimple } from "./replies.ts";

interface Request extends Cookie { readonly type: number; readonly flags: number; readonly offset: number; readonly length: number }
/** A write whose data is arriving; `into` absent: it was refused, and its data goes nowhere. */
interface Incoming { readonly request: Request; readonly into: Uint8Array | undefined; received: number; readonly refused: DiskError | undefined }

/** From this length on a read looks for holes, which need not be sent. */
const LOOK_FOR_HOLES = 32 << 10;
const CACHE_STEP = 1 << 20;
/** A connection takes no further request while so much is under way. */
const MOST_BYTES = 16 << 20, MOST_REQUESTS = 128;

const ALLOWED: ReadonlyMap<number, number> = new Map([
  [Command.read, CommandFlag.df], [Command.write, 0], [Command.flush, 0], [Command.trim, 0], [Command.cache, 0],
  [Command.writeZeroes, CommandFlag.noHole], [Command.blockStatus, CommandFlag.requestOne],
]);
const CHANGES = new Set<number>([Command.write, Command.trim, Command.writeZeroes]);

/** The server's side of the transmission phase of one connection. */
export class Transmission {
  #incoming: Incoming | undefined;
  #requests = 0;
  #bytes = 0;
  /** Whether the last read answered later: the next one then gets a buffer of its own. */
  #later = false;

  /** `progress` is called when a request that took time is answered; `failed`: with what the disk could not do. */
  constructor(readonly offer: Export, readonly agreed: Agreement, readonly input: Input, readonly out: Outbox, readonly progress: () => void, readonly failed: (error: unknown) => void) {}

  /** Requests under way. */
  get active(): number {
    return this.#requests;
  }

  /** Whether no further request may be begun now. */
  get full(): boolean {
    return this.#bytes >= MOST_BYTES || this.#requests >= MOST_REQUESTS || this.out.wire.unsent >= MOST_BYTES;
  }

  /**
   * Takes one request of what has arrived. Answers about how much work that was, in blocks of 4 KiB; 0: more must
   * arrive first. "end": the client is leaving, "hang up": it does not speak the protocol.
   */
  step(): number | "end" | "hang up" {
    const { input } = this;
    if (this.#incoming !== undefined) return this.#receive(this.#incoming);
    if (input.length < REQUEST) return 0;
    if (input.u32(0) !== REQUEST_MAGIC) return "hang up";
    const flags = input.u16(4), type = input.u16(6), high = input.u32(8), low = input.u32(12), offset = input.u64(16), length = input.u32(24);
    input.skip(REQUEST);
    if (type === Command.disconnect) return "end";
    if (type === Command.write && length > MAX_REQUEST) return "hang up";
    const refused = this.#check(type, flags, offset, length);
    if (type === Command.read && refused === undefined) return this.#read(high, low, offset, length, flags);
    const request = { type, flags, high, low, offset, length };
    if (type === Command.write) return this.#expect(request, refused);
    if (refused !== undefined) this.#fail(request, refused);
    else this.#begin(request);
    return type === Command.blockStatus ? MOST_EXTENTS / 8 : 16;
  }

  #check(type: number, flags: number, offset: number, length: number): DiskError | undefined {
    const allowed = ALLOWED.get(type);
    if (allowed === undefined) return new DiskError("invalid-argument", `unknown command ${type}`);
    if ((flags & ~(allowed | CommandFlag.fua)) !== 0) return new DiskError("invalid-argument", `unknown flags ${flags} of command ${type}`);
    if (CHANGES.has(type) && this.offer.readOnly) return new DiskError("read-only", "the export is read-only");
    if (type === Command.flush) return undefined;
    if (offset + length > this.offer.storage.size) return new DiskError(type === Command.write || type === Command.writeZeroes ? "no-space" : "invalid-argument", "the request ends behind the disk's end");
    if (type === Command.read && length > MAX_REQUEST) return new DiskError("invalid-argument", "reads of more than 32 MiB are not served");
    if (type === Command.blockStatus && (this.agreed.contexts.length === 0 || length === 0)) return new DiskError("invalid-argument", "no metadata context was selected, or nothing is asked about");
    return undefined;
  }

  #begin(request: Request): void {
    const { storage } = this.offer, { type, flags, offset, length } = request;
    if (type === Command.flush) this.#act(request, 0, () => storage.flush());
    else if (type === Command.trim) this.#change(request, 0, () => storage.discard(offset, length));
    else if (type === Command.writeZeroes) this.#change(request, 0, () => storage.zero(offset, length, (flags & CommandFlag.noHole) !== 0));
    else if (type === Command.cache) this.#act(request, CACHE_STEP, () => run(this.#cache(offset, length)));
    else if (type === Command.blockStatus) this.#act(request, 0, () => run(this.#blockStatus(request)), false);
  }

  /** Runs a request and answers it; not if `answers` is false, unless it fails. `bytes`: what it holds in memory. */
  #act(request: Cookie, bytes: number, action: () => Pending, answers = true): void {
    let pending: Pending;
    try {
      pending = action();
    } catch (error) {
      this.#fail(request, error);
      return;
    }
    if (!pending) {
      if (answers) this.#acknowledge(request);
      return;
    }
    this.#requests++;
    this.#bytes += bytes;
    void pending.then(() => { if (answers) this.#acknowledge(request); }, (error: unknown) => { this.#fail(request, error); }).then(() => {
      this.#requests--;
      this.#bytes -= bytes;
      this.progress();
    });
  }

  #change(request: Request, bytes: number, action: () => Pending): void {
    const { storage, writeThrough } = this.offer;
    if (!writeThrough && (request.flags & CommandFlag.fua) === 0) return this.#act(request, bytes, action);
    this.#act(request, bytes, () => run((function* durable(): Task {
      yield wait(action);
      yield flush(storage, "FUA");
    })()));
  }

  #expect(request: Request, refused: DiskError | undefined): number {
    const whole = this.input.length >= request.length;
    if (whole && refused === undefined) {
      this.#write(request, this.input.take(request.length));
      return 1 + request.length / 4096;
    }
    this.#incoming = { request, refused, received: 0, into: refused === undefined ? this.out.pool.take(request.length) : undefined };
    return this.#receive(this.#incoming);
  }

  #receive(incoming: Incoming): number {
    const { request, into, refused } = incoming, part = this.input.take(Math.min(this.input.length, request.length - incoming.received));
    into?.set(part, incoming.received);
    incoming.received += part.length;
    if (incoming.received < request.length) return 0;
    this.#incoming = undefined;
    if (into === undefined) this.#fail(request, refused);
    else this.#write(request, into.subarray(0, request.length), () => { this.out.pool.give(into); });
    return 1 + request.length / 4096;
  }

  #write(request: Request, from: Uint8Array, written: () => void = () => undefined): void {
    this.#change(request, request.length, () => {
      const pending = this.offer.storage.write(request.offset, from);
      if (!pending) written();
      return pending?.finally(written);
    });
  }

  /** Drops what was received of a write that will never be complete. */
  abandon(): void {
    const into = this.#incoming?.into;
    this.#incoming = undefined;
    if (into !== undefined) this.out.pool.give(into);
  }

  #read(high: number, low: number, offset: number, length: number, flags: number): number {
    const { structured } = this.agreed, work = 1 + length / 4096;
    if (structured && length >= LOOK_FOR_HOLES && (flags & CommandFlag.df) === 0) {
      this.#act({ high, low }, length, () => run(this.#readSparse({ high, low }, offset, length)), false);
      return work;
    }
    if (length === 0 && structured) this.#nothing({ high, low });
    else this.#readPlain(high, low, offset, length);
    return work;
  }

  /** The shortest way for what is resident: into the reply's own place, with no promise and no copy. */
  #readPlain(high: number, low: number, offset: number, length: number): void {
    const header = this.#readHeader, size = header + length, { out } = this;
    let own = this.#later ? out.pool.take(size) : undefined;
    const at = own === undefined ? out.reserve(size) : 0, slab = own ?? out.slab;
    let pending: Pending;
    try {
      pending = this.offer.storage.read(offset, slab.subarray(at + header, at + size));
    } catch (error) {
      if (own !== undefined) out.pool.give(own);
      this.#fail({ high, low }, error);
      return;
    }
    this.#later = pending !== undefined;
    if (!pending) {
      this.#putReadHeader(slab, at, high, low, offset, length);
      if (own === undefined) out.commit(size);
      else out.sendOwn(own, 0, size);
      return;
    }
    own ??= out.detach();
    this.#act({ high, low }, length, () => pending.then(() => {
      this.#putReadHeader(slab, at, high, low, offset, length);
      out.sendOwn(slab, at, size);
    }, (error: unknown) => {
      out.pool.give(slab);
      throw error;
    }), false);
  }

  get #readHeader(): number {
    return this.agreed.structured ? CHUNK + DATA_OFFSET : SIMPLE_REPLY;
  }

  #putReadHeader(into: Uint8Array, at: number, high: number, low: number, offset: number, length: number): void {
    if (!this.agreed.structured) {
      putSimple(into, at, { high, low }, 0);
      return;
    }
    putChunk(into, at, DONE, Chunk.offsetData, { high, low }, DATA_OFFSET + length);
    put64(into, at + CHUNK, offset);
  }

  *#readSparse(cookie: Cookie, offset: number, length: number): Task {
    const parts = yield* pieces(this.offer.contexts[0], offset, length), size = piecesSize(parts), buffer = this.out.pool.take(size);
    try {
      yield* fill(this.offer.storage, putPieces(buffer, cookie, parts));
    } catch (error) {
      this.out.pool.give(buffer);
      throw error;
    }
    this.out.sendOwn(buffer, 0, size);
  }

  *#blockStatus({ high, low, offset, length, flags }: Request): Task {
    const most = (flags & CommandFlag.requestOne) === 0 ? MOST_EXTENTS : 1, found: Extent[][] = [];
    for (const context of this.agreed.contexts) found.push(yield* extents(context, offset, offset + length, most));
    const bytes = blockStatusReply({ high, low }, found), at = this.out.reserve(bytes.length);
    this.out.slab.set(bytes, at);
    this.out.commit(bytes.length);
  }

  /** Reads what will be asked for, so that a storage that keeps what it fetched has it. */
  *#cache(offset: number, length: number): Task {
    const into = this.out.pool.take(CACHE_STEP);
    try {
      for (let at = offset; at < offset + length; at += CACHE_STEP) yield read(this.offer.storage, at, into.subarray(0, Math.min(CACHE_STEP, offset + length - at)));
    } finally {
      this.out.pool.give(into);
    }
  }

  /** Without data a simple reply will do, whatever was agreed on; but a read's must be structured then. */
  #acknowledge(cookie: Cookie): void {
    const at = this.out.reserve(SIMPLE_REPLY);
    putSimple(this.out.slab, at, cookie, 0);
    this.out.commit(SIMPLE_REPLY);
  }

  /** A chunk with data may not be empty. */
  #nothing(cookie: Cookie): void {
    const at = this.out.reserve(CHUNK);
    putChunk(this.out.slab, at, DONE, Chunk.none, cookie, 0);
    this.out.commit(CHUNK);
  }

  #fail(cookie: Cookie, error: unknown): void {
    const errno = errnoOf(error);
    if (errno === Errno.io || errno === Errno.noSpace) this.failed(error);
    // What happened, but not where: names of files here are nobody's business there.
    const text = errorText(error instanceof DiskError ? error.what : "internal error"), { structured } = this.agreed;
    const size = structured ? CHUNK + 6 + text.length : SIMPLE_REPLY, at = this.out.reserve(size), { slab } = this.out;
    if (structured) {
      putChunk(slab, at, DONE, Chunk.error, cookie, 6 + text.length);
      put32(slab, at + CHUNK, errno);
      put16(slab, at + CHUNK + 4, text.length);
      slab.set(text, at + CHUNK + 6);
    } else putSimple(slab, at, cookie, errno);
    this.out.commit(size);
  }
}
