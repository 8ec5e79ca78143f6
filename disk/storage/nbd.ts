import { DiskError } from "../errors.ts";
import { ConnectionLost, type Dial, NbdClient, type StatusExtent } from "../nbd/client.ts";
import { can, type ServerExport } from "../nbd/handshake.ts";
import { Command, CommandFlag, State } from "../nbd/protocol.ts";
import { ChangeOrder } from "../order.ts";
import { all, type Pending, type Storage } from "../storage.ts";
import { call, run, type Task, wait } from "../task.ts";
import { after } from "./fetch.ts";
import type { Sparse, SparseExtent } from "./sparse.ts";

export interface NbdOptions {
  /** The export's name; the server's default one if not given. */
  readonly export?: string | undefined;
  /** Default `false`. A server may refuse writes all the same: then opening fails as `read-only`. */
  readonly writable?: boolean | undefined;
  /** How often a lost connection is made anew for a read; never where the export was opened for writing. Default 3. */
  readonly retries?: number | undefined;
  /** Milliseconds before the first of them; each further one waits four times as long. Default 250. */
  readonly backoff?: number | undefined;
}

/** Ranges of commands without data may be long: this is far below what fits a request, and a multiple of any block size. */
const LONGEST = 2 ** 30;
const ZEROS = 1 << 20;

/**
 * The export of an NBD server. Requests run side by side on one connection. Its size is fixed. What the server tells of
 * holes is known for the range asked about last.
 */
export class NbdStorage implements Storage, Sparse {
  readonly readOnly: boolean;
  #client: NbdClient;
  #again: Promise<NbdClient> | undefined;
  #closed = false;
  #flushFailure: unknown;
  /** Writes of parts of the server's blocks read and write what is around them. */
  readonly #order = new ChangeOrder();
  #known: { readonly start: number; readonly extents: readonly StatusExtent[] } | undefined;

  private constructor(client: NbdClient, readonly name: string, readonly dial: Dial, readonly options: NbdOptions) {
    this.#client = client;
    this.readOnly = options.writable !== true;
  }

  /** Connects. `name` is the URL that messages tell. Rejects with `DiskError`: `not-found`, `read-only`, `unsupported`, `io`. */
  static async open(name: string, dial: Dial, options: NbdOptions = {}): Promise<NbdStorage> {
    const client = await NbdClient.connect(name, options.export ?? "", dial);
    if (options.writable === true && can(client.export, "readOnly")) {
      client.close();
      throw new DiskError("read-only", "the server allows no changes: open it read-only, or put an overlay on it", { path: name, operation: "open" });
    }
    return new NbdStorage(client, name, dial, options);
  }

  get size(): number {
    return this.#export.size;
  }

  get #export(): ServerExport {
    return this.#client.export;
  }

  read(offset: number, into: Uint8Array): Pending {
    const present = Math.max(0, Math.min(into.length, this.size - offset));
    into.fill(0, present);
    return present === 0 ? undefined : all(this.#parts(offset, present, this.#export.most).map(([at, length]) => this.#read(at, into.subarray(at - offset, at - offset + length))));
  }

  write(offset: number, from: Uint8Array): Pending {
    this.#mayChange("write", offset);
    if (offset + from.length > this.size) throw new DiskError("no-space", `the export has ${this.size} bytes and cannot grow: make it larger on the server`, { path: this.name, offset, operation: "write" });
    return this.#change(offset, from.length, () => run(this.#write(offset, from)));
  }

  zero(offset: number, length: number, keep = false): Pending {
    this.#mayChange("zero", offset);
    const count = Math.min(length, this.size - offset);
    return count <= 0 ? undefined : this.#change(offset, count, () => run(this.#zero(offset, count, keep)));
  }

  discard(offset: number, length: number): Pending {
    this.#mayChange("discard", offset);
    const { first, last } = this.#wholeBlocks(offset, Math.min(length, this.size - offset));
    if (first >= last || !can(this.#export, "trim")) return;
    return this.#change(first, last - first, () => all(this.#parts(first, last - first, LONGEST).map(([at, length]) => this.#client.command(Command.trim, 0, at, length))));
  }

  truncate(size: number): Pending {
    if (size !== this.size) throw new DiskError("unsupported", "the size of an NBD export is its server's: change it there", { path: this.name, operation: "truncate" });
  }

  /** After one failure all later flushes fail too: the server may have dropped what it could not write. */
  flush(): Pending {
    if (this.#flushFailure !== undefined) throw this.#flushFailure;
    if (this.readOnly || !can(this.#export, "flush")) return;
    return this.#client.command(Command.flush).catch((error: unknown) => {
      this.#flushFailure = error;
      throw error;
    });
  }

  close(): Pending {
    this.#closed = true;
    this.#client.close();
  }

  dataAt(offset: number): SparseExtent | undefined {
    if (this.#export.allocation === undefined) return { data: true, length: this.size - offset };
    let start = this.#known?.start ?? Infinity;
    for (const { length, flags } of start > offset ? [] : this.#known?.extents ?? []) {
      const end = Math.min(start + length, this.size);
      if (offset < end) return { data: (flags & State.zero) === 0, length: end - offset };
      start += length;
    }
    return undefined;
  }

  async learn(offset: number): Promise<void> {
    const { least } = this.#export, start = offset - (offset % least);
    const extents = await this.#retried((client) => client.status(start, Math.min(LONGEST, this.size - start)));
    this.#known = { start, extents };
  }

  #mayChange(operation: string, offset: number): void {
    if (this.readOnly) throw new DiskError("read-only", "was opened read-only: open it for writing to change it", { path: this.name, offset, operation });
  }

  /** Runs a change; what was known of holes there is known no longer. */
  #change(offset: number, length: number, change: () => Pending): Pending {
    this.#known = undefined;
    const { least } = this.#export, start = offset - (offset % least);
    const pending = least === 1 ? change() : this.#order.run(start, Math.ceil((offset + length) / least) * least - start, change);
    return pending?.finally(() => { this.#known = undefined; });
  }

  /** The range in pieces of at most `most` bytes, a multiple of the server's blocks. */
  #parts(offset: number, length: number, most: number): (readonly [at: number, length: number])[] {
    const parts: (readonly [number, number])[] = [], end = offset + length;
    for (let at = offset; at < end;) {
      // The first piece ends where the others begin: at a whole block.
      const step = Math.min(end - at, most - (at % this.#export.least));
      parts.push([at, step]);
      at += step;
    }
    return parts;
  }

  #read(offset: number, into: Uint8Array): Pending {
    const { first, last } = this.#around(offset, into.length);
    if (first === offset && last === offset + into.length) return this.#retried((client) => client.read(offset, into));
    const blocks = new Uint8Array(last - first);
    return this.#retried((client) => client.read(first, blocks)).then(() => { into.set(blocks.subarray(offset - first, offset - first + into.length)); });
  }

  *#write(offset: number, from: Uint8Array): Task {
    const { first, last } = this.#around(offset, from.length);
    let bytes = from;
    if (first !== offset || last !== offset + from.length) {
      const blocks = new Uint8Array(last - first);
      yield wait(() => this.read(first, blocks));
      blocks.set(from, offset - first);
      bytes = blocks;
    }
    yield wait(() => all(this.#parts(first, bytes.length, this.#export.most).map(([at, length]) => this.#client.write(at, bytes.subarray(at - first, at - first + length)))));
  }

  *#zero(offset: number, length: number, keep: boolean): Task {
    const { first, last } = this.#wholeBlocks(offset, length), end = offset + length;
    if (first >= last || !can(this.#export, "writeZeroes")) return yield* this.#writeZeros(offset, end);
    yield* this.#writeZeros(offset, first);
    const flags = keep ? CommandFlag.noHole : 0;
    yield wait(() => all(this.#parts(first, last - first, LONGEST).map(([at, length]) => this.#client.command(Command.writeZeroes, flags, at, length))));
    yield* this.#writeZeros(last, end);
  }

  *#writeZeros(offset: number, end: number): Task {
    const zeros = new Uint8Array(Math.max(0, Math.min(end - offset, ZEROS)));
    for (let at = offset; at < end; at += zeros.length) yield* this.#write(at, zeros.subarray(0, end - at));
  }

  /** The server's blocks that the range touches. The last one may be cut short by the end. */
  #around(offset: number, length: number): { first: number; last: number } {
    const { least } = this.#export;
    return { first: offset - (offset % least), last: Math.min(Math.ceil((offset + length) / least) * least, this.size) };
  }

  #wholeBlocks(offset: number, length: number): { first: number; last: number } {
    const { least } = this.#export, end = offset + length;
    return { first: Math.ceil(offset / least) * least, last: end === this.size ? end : end - (end % least) };
  }

  /** What only reads is tried again on a new connection; but where there were writes, some may be lost, and all ends. */
  #retried<T>(request: (client: NbdClient) => Promise<T>): Promise<T> {
    return request(this.#client).catch((error: unknown) => {
      if (!(error instanceof ConnectionLost) || !this.readOnly || this.#closed) throw error;
      return run(this.#retry(request, error));
    });
  }

  *#retry<T>(request: (client: NbdClient) => Promise<T>, lost: ConnectionLost): Task<T> {
    const { retries = 3, backoff = 250 } = this.options;
    for (let tries = 0; tries < retries && !this.#closed; tries++) {
      yield wait(() => new Promise((resolve) => { after(backoff * 4 ** tries, resolve); }));
      try {
        const client = yield* call(() => this.#anew());
        return yield* call(() => request(client));
      } catch (error) {
        if (!(error instanceof ConnectionLost)) throw error;
      }
    }
    throw new DiskError(lost.kind, `${lost.what} (tried ${retries} times to connect again)`, lost.context, lost.cause);
  }

  /** A new connection to the same export, one for all who need it. */
  #anew(): Promise<NbdClient> {
    if (this.#client.alive) return Promise.resolve(this.#client);
    this.#again ??= NbdClient.connect(this.name, this.options.export ?? "", this.dial).then((client) => {
      const { size } = this;
      if (client.export.size === size && !this.#closed) return (this.#client = client);
      client.close();
      throw new DiskError("io", `the export had ${size} bytes, and has ${client.export.size} now: open it again`, { path: this.name });
    }).finally(() => { this.#again = undefined; });
    return this.#again;
  }
}
