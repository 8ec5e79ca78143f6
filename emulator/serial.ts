import { Emitter } from "./events.ts";

/** v86's UART drops input beyond 4096 bytes that the guest has not read. */
const INPUT_LIMIT = 2048;
const INPUT_RETRY = 5;
/** Text that nobody waited for is forgotten beyond this. */
const TRANSCRIPT_LIMIT = 1 << 20;
const EXCERPT = 400;

/** The wires of v86's first serial port. */
export interface SerialWires {
  send(bytes: Uint8Array): void;
  /** Bytes that the guest has not read yet. */
  unread(): number;
}

interface Waiter { readonly pattern: string | RegExp; readonly found: (text: string) => void }

/** COM1. Output comes in chunks, one for each turn of the machine; input waits until the guest takes it. */
export class SerialPort {
  readonly #events = new Emitter<{ output: Uint8Array<ArrayBuffer> }>();
  readonly #decoder = new TextDecoder();
  readonly #waiters = new Set<Waiter>();
  #chunk = new Uint8Array(1024);
  #length = 0;
  #unmatched = "";
  #input: Uint8Array[] = [];
  #sending = false;
  #closed = false;

  constructor(readonly wires: SerialWires) {}

  onOutput(listener: (bytes: Uint8Array<ArrayBuffer>) => void): () => void {
    return this.#events.on("output", listener);
  }

  /** A byte from the guest. Chunks are handed on when the machine next yields. */
  receive(byte: number): void {
    if (this.#length === this.#chunk.length) {
      const larger = new Uint8Array(this.#chunk.length * 2);
      larger.set(this.#chunk);
      this.#chunk = larger;
    }
    if (this.#length === 0) queueMicrotask(() => this.#flush());
    this.#chunk[this.#length++] = byte;
  }

  /** Types into the guest: text as UTF-8. */
  send(data: string | Uint8Array): void {
    this.#input.push(typeof data === "string" ? new TextEncoder().encode(data) : data.slice());
    if (!this.#sending) this.#pump();
  }

  /**
   * The output from where the last `waitFor` ended up to and with the first match of `pattern`; what is already there
   * counts. Fails after `timeout` ms.
   */
  waitFor(pattern: string | RegExp, timeout = 30_000): Promise<string> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = { pattern, found: (text) => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
        resolve(text);
      } };
      const timer = setTimeout(() => {
        this.#waiters.delete(waiter);
        reject(new Error(`no ${String(pattern)} on the serial port within ${timeout} ms; it ends in ${JSON.stringify(this.#unmatched.slice(-EXCERPT))}`));
      }, timeout);
      this.#waiters.add(waiter);
      this.#match();
    });
  }

  close(): void {
    this.#closed = true;
    this.#input = [];
    this.#events.clear();
  }

  #flush(): void {
    const bytes = this.#chunk.slice(0, this.#length);
    this.#length = 0;
    this.#unmatched = (this.#unmatched + this.#decoder.decode(bytes, { stream: true })).slice(-TRANSCRIPT_LIMIT);
    this.#match();
    this.#events.emit("output", bytes);
  }

  #match(): void {
    for (const { pattern, found } of this.#waiters) {
      const end = endOfMatch(this.#unmatched, pattern);
      if (end < 0) continue;
      const text = this.#unmatched.slice(0, end);
      this.#unmatched = this.#unmatched.slice(end);
      found(text);
    }
  }

  #pump(): void {
    this.#sending = false;
    while (!this.#closed && this.#input[0]) {
      const room = INPUT_LIMIT - this.wires.unread();
      if (room <= 0) {
        this.#sending = true;
        setTimeout(() => this.#pump(), INPUT_RETRY);
        return;
      }
      const first = this.#input[0];
      this.wires.send(first.subarray(0, room));
      if (first.length > room) this.#input[0] = first.subarray(room);
      else this.#input.shift();
    }
  }
}

function endOfMatch(text: string, pattern: string | RegExp): number {
  if (typeof pattern === "string") {
    const at = text.indexOf(pattern);
    return at < 0 ? -1 : at + pattern.length;
  }
  const match = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, "")).exec(text);
  return match ? match.index + match[0].length : -1;
}
