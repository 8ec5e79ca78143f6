import { Buffer } from "node:buffer";
import type { Socket } from "node:net";
import type { Wire, WireEvents } from "./wire.ts";

/** A socket of Node as a wire. What arrives before `start` waits. */
export class SocketWire implements Wire {
  constructor(readonly socket: Socket) {
    socket.setNoDelay(true);
    // So that a client that is gone without a word does not keep its place for ever.
    socket.setKeepAlive(true, 60_000);
  }

  /** Tells `events` what happens from now on; its chunks are the receiver's to keep. */
  start(events: WireEvents): void {
    const { socket } = this;
    let failure: Error | undefined;
    socket.on("data", (bytes) => { events.data(bytes); });
    socket.on("drain", () => { events.drained(); });
    socket.on("error", (error) => { failure = error; });
    // The other side sends nothing more, and nobody speaks into the void.
    socket.on("end", () => { socket.destroySoon(); });
    socket.on("close", () => { events.closed(failure); });
    socket.resume();
  }

  get unsent(): number {
    return this.socket.writableLength;
  }

  send(bytes: Uint8Array, sent?: () => void): void {
    if (this.socket.writable) this.socket.write(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), sent && ((error) => { if (!error) sent(); }));
  }

  pause(): void {
    this.socket.pause();
  }

  resume(): void {
    this.socket.resume();
  }

  later(action: () => void): void {
    setImmediate(action);
  }

  end(): void {
    this.socket.destroySoon();
  }

  destroy(): void {
    this.socket.destroy();
  }
}
