import { DiskError } from "../errors.ts";
import { after } from "../storage/fetch.ts";
import { Coverage } from "./coverage.ts";
import { meaningOf } from "./errno.ts";
import { type Conversation, handshake, printable, type ServerExport } from "./handshake.ts";
import { Input } from "./input.ts";
import { put16, put32, put64 } from "./message.ts";
import { Outbox } from "./outbox.ts";
import { BufferPool } from "./pool.ts";
import { CHUNK, Chunk, CHUNK_MAGIC, Command, DATA_OFFSET, DONE, isErrorChunk, REQUEST, REQUEST_MAGIC, SIMPLE_REPLY, SIMPLE_REPLY_MAGIC } from "./protocol.ts";
import type { Wire, WireEvents } from "./wire.ts";

/** Makes a connection. What happens on it goes to `events`, whose chunks are not theirs to keep. Rejects with `DiskError`. */
export type Dial = (events: WireEvents) => Promise<Wire>;

/** The connection is gone, or was never there: on a new one the same request may succeed. */
export class ConnectionLost extends DiskError {}

/** A range of the export that the server says something about: flags of `base:allocation`. */
export interface StatusExtent { readonly length: number; readonly flags: number }

interface Request {
  readonly cookie: number;
  readonly type: number;
  readonly offset: number;
  readonly length: number;
  /** Where what is read goes. */
  readonly into: Uint8Array | undefined;
  /** What is known already of what it asks about. */
  readonly extents: StatusExtent[] | undefined;
  readonly covered: Coverage | undefined;
  failure: DiskError | undefined;
  done(error?: unknown): void;
}

/** Payload that is arriving, `left` bytes of it: data for `into` at `at`, or extents. */
interface Body { readonly request: Request; readonly into?: Uint8Array | undefined; readonly extents?: StatusExtent[] | undefined; readonly last: boolean; at: number; left: number }

/** Milliseconds for the connection and the handshake, and until a server that owes an answer counts as gone. */
const OPENING = 20_000, PATIENCE = 120_000;
/** What a write is copied into the same buffer with its request up to: one system call is dearer than that. */
const SMALL = 64 << 10;
const MOST_MESSAGE = 64 << 10, MOST_EXTENTS = 1 << 16;
const NO_OFFSET = 0;

/** One connection to a server, in the transmission phase. Requests run side by side; each answers when its reply has come. */
export class NbdClient implements WireEvents {
  readonly #input = new Input();
  readonly #requests = new Map<number, Request>();
  #out: Outbox | undefined;
  #cookie = 0;
  #body: Body | undefined;
  #failure: DiskError | undefined;
  #talk: { conversation: Conversation<ServerExport>; need: number; agreed(found: ServerExport): void } | undefined;
  #failed: (error: DiskError) => void = () => undefined;
  #found: ServerExport | undefined;
  #stopWatch: () => void = () => undefined;
  /** Whether something arrived since the watch last looked. */
  #heard = false;

  private constructor(readonly name: string) {}

  /** Connects to the export `exportName`. `name` stands in errors. Rejects with `DiskError`. */
  static async connect(name: string, exportName: string, dial: Dial): Promise<NbdClient> {
    const client = new NbdClient(name);
    const cancel = after(OPENING, () => { client.#fail(new ConnectionLost("io", "the server does not answer: check the address, and that it is running")); });
    try {
      const wire = await dial(client);
      client.#out = new Outbox(wire, new BufferPool(SMALL * 2));
      await client.#agree(wire, exportName);
      return client;
    } catch (error) {
      client.#out?.wire.destroy();
      throw located(error, name);
    } finally {
      cancel();
    }
  }

  get export(): ServerExport {
    if (this.#found === undefined) throw new Error("the handshake is not over");
    return this.#found;
  }

  /** Whether it can still be used. */
  get alive(): boolean {
    return this.#failure === undefined;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#request(Command.read, 0, offset, into.length, { into });
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#request(Command.write, 0, offset, from.length, { from });
  }

  /** Any request without data: flush, trim, zeros. */
  command(type: number, flags = 0, offset = NO_OFFSET, length = 0): Promise<void> {
    return this.#request(type, flags, offset, length, {});
  }

  /** What stands at the range, from its beginning; not necessarily to its end. Never empty. */
  async status(offset: number, length: number): Promise<StatusExtent[]> {
    const extents: StatusExtent[] = [];
    await this.#request(Command.blockStatus, 0, offset, length, { extents });
    return extents;
  }

  /** Says goodbye and closes. Requests under way fail. */
  close(): void {
    if (this.#failure !== undefined) return;
    const out = this.#out;
    if (out !== undefined) {
      this.#putRequest(out, Command.disconnect, 0, 0, 0, 0);
      out.flush();
      out.wire.end();
    }
    this.#fail(new DiskError("io", "the connection was closed: open it again"), false);
  }

  data(bytes: Uint8Array): void {
    this.#heard = true;
    this.#input.push(bytes);
    try {
      if (this.#talk !== undefined) this.#converse(this.#talk);
      if (this.#talk === undefined) while (this.#failure === undefined && this.#step()) { /* reply after reply */ }
    } catch (error) {
      this.#fail(error instanceof DiskError ? error : new DiskError("io", "the answer could not be read", {}, error));
    }
    this.#input.keep();
  }

  drained(): void {}

  closed(error?: Error): void {
    this.#fail(new ConnectionLost("io", `the server closed the connection${error === undefined ? "" : ` (${error.message})`}: look for the reason there, then try again`, {}, error));
  }

  #agree(wire: Wire, exportName: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#failed = reject;
      if (this.#failure !== undefined) return reject(this.#failure);
      const conversation = handshake(exportName, (bytes) => { wire.send(bytes); }), first = conversation.next();
      this.#talk = { conversation, need: first.done === true ? 0 : first.value, agreed: (found) => { this.#found = found; resolve(); } };
      this.#converse(this.#talk);
    });
  }

  #converse(talk: { conversation: Conversation<ServerExport>; need: number; agreed(found: ServerExport): void }): void {
    while (this.#failure === undefined && this.#input.length >= talk.need) {
      const next = talk.conversation.next(this.#input.take(talk.need));
      if (next.done === true) {
        this.#talk = undefined;
        talk.agreed(next.value);
        return;
      }
      talk.need = next.value;
    }
  }

  #request(type: number, flags: number, offset: number, length: number, { into, from, extents }: { into?: Uint8Array; from?: Uint8Array; extents?: StatusExtent[] }): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== undefined || this.#out === undefined) return reject(this.#failure ?? new Error("not connected"));
      const cookie = this.#cookie = (this.#cookie + 1) % 2 ** 32;
      const covered = into === undefined ? undefined : new Coverage();
      this.#requests.set(cookie, { cookie, type, offset, length, into, extents, covered, failure: undefined, done: (error) => { if (error === undefined) resolve(); else reject(error); } });
      this.#putRequest(this.#out, type, flags, cookie, offset, length, from);
      if (this.#requests.size === 1) this.#watch();
    });
  }

  #putRequest(out: Outbox, type: number, flags: number, cookie: number, offset: number, length: number, from?: Uint8Array): void {
    const within = from !== undefined && from.length <= SMALL ? from : undefined, size = REQUEST + (within?.length ?? 0);
    const at = out.reserve(size), { slab } = out;
    put32(slab, at, REQUEST_MAGIC);
    put16(slab, at + 4, flags);
    put16(slab, at + 6, type);
    put32(slab, at + 8, 0);
    put32(slab, at + 12, cookie);
    put64(slab, at + 16, offset);
    put32(slab, at + 24, length);
    if (within !== undefined) slab.set(within, at + REQUEST);
    out.commit(size);
    if (from === undefined || within !== undefined) return;
    out.flush();
    out.wire.send(from);
  }

  /** Takes one piece of what has arrived; `false`: more must arrive first. */
  #step(): boolean {
    const input = this.#input;
    if (this.#body !== undefined) return input.length > 0 && this.#takeBody(this.#body);
    if (input.length < SIMPLE_REPLY) return false;
    const magic = input.u32(0);
    if (magic === SIMPLE_REPLY_MAGIC) return this.#simple();
    if (magic !== CHUNK_MAGIC || !this.export.structured) throw this.#broken("that is no reply");
    return input.length >= CHUNK && this.#chunk();
  }

  #simple(): boolean {
    const input = this.#input, errno = input.u32(4), request = this.#requestOf(input.u32(8), input.u32(12));
    if (request.into !== undefined && this.export.structured) throw this.#broken("a simple reply to a read");
    if (request.extents !== undefined && errno === 0) throw this.#broken("a simple reply to a block status request");
    input.skip(SIMPLE_REPLY);
    if (errno !== 0) request.failure = this.#refusal(request, errno, "");
    if (errno !== 0 || request.into === undefined) this.#finish(request);
    else {
      request.covered?.add(0, request.length);
      this.#receive({ request, into: request.into, last: true, at: 0, left: request.length });
    }
    return true;
  }

  #chunk(): boolean {
    const input = this.#input, flags = input.u16(4), type = input.u16(6), length = input.u32(16), request = this.#requestOf(input.u32(8), input.u32(12)), last = (flags & DONE) !== 0;
    if (type === Chunk.none) {
      if (length !== 0 || !last) throw this.#broken("a chunk that is nothing and not the last");
      input.skip(CHUNK);
      this.#finish(request);
      return true;
    }
    if (type === Chunk.offsetData && request.into !== undefined) return this.#dataChunk(request, length, last);
    if (type === Chunk.offsetHole && request.into !== undefined) return this.#holeChunk(request, length, last);
    if (type === Chunk.blockStatus && request.extents !== undefined) return this.#statusChunk(request, length, last);
    if (isErrorChunk(type)) return this.#errorChunk(request, length, last);
    throw this.#broken(`a chunk of type ${type} and ${length} bytes in reply to a request of type ${request.type}`);
  }

  #dataChunk(request: Request, length: number, last: boolean): boolean {
    const input = this.#input, size = length - DATA_OFFSET;
    if (input.length < CHUNK + DATA_OFFSET) return false;
    const at = this.#within(request, input.u64(CHUNK), size);
    input.skip(CHUNK + DATA_OFFSET);
    this.#receive({ request, into: request.into, last, at, left: size });
    return true;
  }

  #holeChunk(request: Request, length: number, last: boolean): boolean {
    const input = this.#input;
    if (length !== DATA_OFFSET + 4) throw this.#broken(`a hole of ${length} bytes`);
    if (input.length < CHUNK + length) return false;
    const size = input.u32(CHUNK + DATA_OFFSET), at = this.#within(request, input.u64(CHUNK), size);
    input.skip(CHUNK + length);
    request.into?.fill(0, at, at + size);
    if (last) this.#finish(request);
    return true;
  }

  /** Where in a read's buffer the range is that a chunk is about. */
  #within(request: Request, offset: number, size: number): number {
    const at = offset - request.offset;
    if (!(size > 0 && at >= 0 && at + size <= request.length)) throw this.#broken(`data of ${size} bytes for another place than was asked for`);
    request.covered?.add(at, size);
    return at;
  }

  #statusChunk(request: Request, length: number, last: boolean): boolean {
    const input = this.#input;
    if (length < 12 || (length - 4) % 8 !== 0) throw this.#broken(`a block status of ${length} bytes`);
    if (input.length < CHUNK + 4) return false;
    const ours = input.u32(CHUNK) === this.export.allocation;
    input.skip(CHUNK + 4);
    this.#body = { request, extents: ours ? request.extents : undefined, last, at: 0, left: length - 4 };
    return true;
  }

  #errorChunk(request: Request, length: number, last: boolean): boolean {
    const input = this.#input;
    if (length < 6 || length > MOST_MESSAGE) throw this.#broken(`an error of ${length} bytes`);
    if (input.length < CHUNK + length) return false;
    const errno = input.u32(CHUNK), count = input.u16(CHUNK + 4);
    if (count > length - 6) throw this.#broken("an error message longer than its chunk");
    input.skip(CHUNK + 6);
    const said = printable(new TextDecoder().decode(input.take(length - 6).subarray(0, count)));
    request.failure ??= this.#refusal(request, errno, said);
    if (last) this.#finish(request);
    return true;
  }

  #receive(body: Body): void {
    if (body.left > 0) this.#body = body;
    else this.#ended(body);
  }

  #takeBody(body: Body): boolean {
    const input = this.#input;
    if (body.into === undefined) return this.#takeExtents(body);
    const part = input.take(Math.min(input.length, body.left));
    body.into.set(part, body.at);
    body.at += part.length;
    body.left -= part.length;
    if (body.left === 0) this.#ended(body);
    return true;
  }

  #takeExtents(body: Body): boolean {
    const input = this.#input, { extents } = body;
    if (input.length < 8) return false;
    const length = input.u32(0), flags = input.u32(4);
    input.skip(8);
    if (length === 0) throw this.#broken("a block status of nothing");
    if (extents !== undefined && extents.length < MOST_EXTENTS) extents.push({ length, flags });
    body.left -= 8;
    if (body.left === 0) this.#ended(body);
    return true;
  }

  #ended({ request, last }: Body): void {
    this.#body = undefined;
    if (last) this.#finish(request);
  }

  #finish(request: Request): void {
    const { failure, covered, extents } = request;
    if (failure === undefined && covered?.complete(request.length) === false) throw this.#broken("a read that is not complete");
    if (failure === undefined && extents?.length === 0) throw this.#broken("no block status");
    this.#requests.delete(request.cookie);
    if (this.#requests.size === 0) this.#stopWatch();
    request.done(failure);
  }

  #requestOf(high: number, low: number): Request {
    const request = high === 0 ? this.#requests.get(low) : undefined;
    if (request === undefined) throw this.#broken("a reply to a request that nobody made");
    return request;
  }

  #refusal({ type, offset }: Request, errno: number, said: string): DiskError {
    if (errno === 0) throw this.#broken("an error that is none");
    const { kind, what } = meaningOf(errno), operation = OPERATIONS[type] ?? "request";
    return new DiskError(kind, `${operation}: ${what}${said === "" ? "" : `; it says: ${said}`}`, { path: this.name, offset, operation });
  }

  #broken(what: string): DiskError {
    return new DiskError("io", `the server does not keep to the NBD protocol: ${what}`, { path: this.name });
  }

  /** The connection is of no use any more: all requests fail, those under way and those to come. */
  #fail(error: DiskError, destroy = true): void {
    if (this.#failure !== undefined) return;
    this.#failure = located(error, this.name);
    this.#stopWatch();
    if (destroy) this.#out?.wire.destroy();
    this.#failed(this.#failure);
    const requests = [...this.#requests.values()];
    this.#requests.clear();
    for (const request of requests) request.done(this.#failure);
  }

  /** A server that owes answers and says nothing for long is gone. */
  #watch(): void {
    this.#heard = false;
    this.#stopWatch = after(PATIENCE, () => {
      if (this.#heard) this.#watch();
      else this.#fail(new ConnectionLost("io", `the server sent nothing for ${PATIENCE / 1000} s: check it and the network`));
    });
  }
}

/** `error`, knowing where. */
function located<E>(error: E, path: string): E {
  if (!(error instanceof ConnectionLost)) return DiskError.within(error, { path }) as E;
  return new ConnectionLost(error.kind, error.what, { path, ...error.context }, error.cause) as E & ConnectionLost;
}

const OPERATIONS: Readonly<Record<number, string>> = {
  [Command.read]: "read", [Command.write]: "write", [Command.flush]: "flush", [Command.trim]: "discard", [Command.writeZeroes]: "zero", [Command.blockStatus]: "block status",
};
