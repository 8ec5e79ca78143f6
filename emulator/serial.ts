import { Emitter } from "./events.ts";
import { SerialReader } from "./serial-reader.ts";

/** v86's UART drops input beyond 4096 bytes that the guest has not read. */
const INPUT_LIMIT = 2048;
const INPUT_RETRY = 5;

/** The wires of v86's first serial port. */
export interface SerialWires {
  send(bytes: Uint8Array): void;
  /** Bytes that the guest has not read yet. */
  unread(): number;
}

/** COM1. Output comes in chunks, one for each turn of the machine; input waits until the guest takes it. */
export class SerialPort {
  readonly #events = new Emitter<{ output: Uint8Array<ArrayBuffer> }>();
  readonly #reader = new SerialReader();
  #chunk = new Uint8Array(1024);
  #length = 0;
  #input: Uint8Array[] = [];
  #waiting = false;
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
    if (!this.#waiting) this.#pump();
  }

  waitFor(pattern: string | RegExp, timeout?: number): Promise<string> {
    return this.#reader.waitFor(pattern, timeout);
  }

  close(): void {
    this.#closed = true;
    this.#input = [];
    this.#events.clear();
  }

  #flush(): void {
    const bytes = this.#chunk.slice(0, this.#length);
    this.#length = 0;
    this.#reader.append(bytes);
    this.#events.emit("output", bytes);
  }

  #pump(): void {
    this.#waiting = false;
    while (!this.#closed && this.#input[0]) {
      const room = INPUT_LIMIT - this.wires.unread();
      if (room <= 0) {
        this.#waiting = true;
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
