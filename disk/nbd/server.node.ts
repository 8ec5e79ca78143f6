import { lstatSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { DiskError } from "../errors.ts";
import type { Export } from "./export.ts";
import { BufferPool } from "./pool.ts";
import { Session } from "./session.ts";
import { SocketWire } from "./socket.node.ts";

/** Where a server listens: a port of an address, a Unix socket, or a socket that is listening already. */
export type Address = { readonly host: string; readonly port: number } | { readonly path: string } | { readonly fd: number };

export interface ServerOptions {
  /** How many clients are served at a time; more wait. Default: 64. */
  readonly clients?: number | undefined;
  /** Milliseconds that a client has for the handshake. Default 10,000. */
  readonly patience?: number;
  /** Told of what happens, a line each. */
  readonly log?: ((line: string) => void) | undefined;
  /** The disk failed; the client that asked knows. */
  readonly failed?: (error: unknown) => void;
  /** The last client that had agreed on the export is gone, and none waits. */
  readonly idle?: () => void;
}

const CLIENTS = 64, MOST_WAITING = 64, PATIENCE = 10_000;
/** Milliseconds that clients have to take their last answers when the server ends. */
const FAREWELL = 5000;

/** Serves an export over NBD on one socket. */
export class NbdServer {
  readonly #server: Server;
  readonly #pool = new BufferPool();
  readonly #sessions = new Map<Session, Socket>();
  readonly #waiting: Socket[] = [];
  #served = 0;
  #ended: (() => void) | undefined;

  private constructor(readonly offer: Export, readonly options: ServerOptions) {
    // A server's sockets are not read before they have their place.
    this.#server = createServer({ pauseOnConnect: true }, (socket) => { this.#arrived(socket); });
  }

  /** Listens. Rejects with `DiskError`: `exists` when the address is taken, `invalid-argument`, `io`. The export stays the caller's. */
  static async listen(offer: Export, address: Address, options: ServerOptions = {}): Promise<NbdServer> {
    const server = new NbdServer(offer, options);
    if ("path" in address) await clearStale(address.path);
    await server.#listen(address);
    return server;
  }

  /** The port it listens on; `undefined` for a Unix socket. */
  get port(): number | undefined {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : undefined;
  }

  /** Ends every connection when its requests under way are answered, and takes the socket away. The export's storage is then idle. */
  async close(): Promise<void> {
    for (const socket of this.#waiting.splice(0)) socket.destroy();
    const listening = new Promise<void>((resolve) => { this.#server.close(() => { resolve(); }); });
    const ended = new Promise<void>((resolve) => { this.#ended = resolve; });
    const timer = setTimeout(() => { for (const socket of this.#sessions.values()) socket.destroy(); }, FAREWELL);
    for (const session of this.#sessions.keys()) session.end();
    this.#checkEnded();
    await ended;
    clearTimeout(timer);
    await listening;
  }

  #listen(address: Address): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once("error", (error: NodeJS.ErrnoException) => { reject(listenError(error, address)); });
      this.#server.listen(address, () => {
        this.#server.removeAllListeners("error");
        // A connection that could not be accepted: the others go on.
        this.#server.on("error", (error) => { this.options.log?.(`a client could not be accepted: ${error.message}`); });
        resolve();
      });
    });
  }

  #arrived(socket: Socket): void {
    socket.on("error", () => undefined);
    if (this.#ended !== undefined || this.#waiting.length >= MOST_WAITING) {
      socket.destroy();
      return;
    }
    this.#waiting.push(socket);
    this.#admit();
  }

  /** Takes those who wait, as far as there is room. */
  #admit(): void {
    while (this.#sessions.size < (this.options.clients ?? CLIENTS)) {
      const socket = this.#waiting.shift();
      if (socket === undefined) return;
      if (!socket.destroyed) this.#serve(socket);
    }
  }

  #serve(socket: Socket): void {
    const who = `client ${++this.#served}`, { log } = this.options, wire = new SocketWire(socket);
    const timer = setTimeout(() => {
      log?.(`${who} took too long to agree on the export`);
      socket.destroy();
    }, this.options.patience ?? PATIENCE);
    let agreed = false;
    const session = new Session(this.offer, wire, this.#pool, {
      agreed: () => {
        clearTimeout(timer);
        agreed = true;
        log?.(`${who} is connected`);
      },
      failed: (error) => { this.options.failed?.(error); },
      closed: (why) => {
        clearTimeout(timer);
        this.#sessions.delete(session);
        log?.(why === undefined ? `${who} is gone` : `${who} is sent away: ${why}`);
        this.#left(agreed);
      },
    });
    this.#sessions.set(session, socket);
    log?.(`${who} arrives${socket.remoteAddress === undefined ? "" : ` from ${socket.remoteAddress}`}`);
    wire.start(session);
  }

  #left(agreed: boolean): void {
    this.#admit();
    if (agreed && this.#sessions.size === 0) this.options.idle?.();
    this.#checkEnded();
  }

  #checkEnded(): void {
    if (this.#sessions.size === 0) this.#ended?.();
  }
}

function listenError(error: NodeJS.ErrnoException, address: Address): DiskError {
  const where = "path" in address ? address.path : "fd" in address ? `file descriptor ${address.fd}` : `${address.host}:${address.port}`, context = { path: where, operation: "listen" };
  if (error.code === "EADDRINUSE") return new DiskError("exists", "in use already: choose another one, or end the server that is there", context, error);
  if (error.code === "EACCES") return new DiskError("io", "no permission to listen there: choose a port from 1024 on, or a socket in a folder of yours", context, error);
  if (error.code === "EADDRNOTAVAIL" || error.code === "ENOTFOUND") return new DiskError("invalid-argument", "not an address of this machine", context, error);
  return new DiskError("io", `cannot listen there: ${error.message}`, context, error);
}

/** Takes away the Unix socket of a server that was killed: one that nobody listens on. */
async function clearStale(path: string): Promise<void> {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return;
  if (!stats.isSocket()) throw new DiskError("exists", "is there already, and is no socket: choose another name", { path });
  const refused = await new Promise<boolean>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(false);
    });
    probe.on("error", ({ code }: NodeJS.ErrnoException) => { resolve(code === "ECONNREFUSED"); });
  });
  if (refused) unlinkSync(path);
}
