import type { Export } from "./export.ts";
import { Input } from "./input.ts";
import { greeting, Negotiation } from "./negotiation.ts";
import { Outbox } from "./outbox.ts";
import type { BufferPool } from "./pool.ts";
import { Transmission } from "./transmission.ts";
import type { Wire, WireEvents } from "./wire.ts";

/** What a session tells whoever keeps it. */
export interface SessionEvents {
  /** The client has chosen the export. */
  agreed(): void;
  /** The disk could not do what the client asked for; the client knows. */
  failed(error: unknown): void;
  /** It is over; `why` says what the client did wrong, if it did. */
  closed(why: string | undefined): void;
}

/** Work, in blocks of 4 KiB, after which other clients have their turn. */
const TURN = 8192;
/** A client that asks without listening is not answered further, in bytes. */
const MOST_UNHEARD = 64 << 10;

/** One client of a server, from the greeting to the end. The wire's chunks are the session's to keep. */
export class Session implements WireEvents {
  readonly #input = new Input();
  readonly #negotiation: Negotiation;
  readonly #out: Outbox;
  #transmission: Transmission | undefined;
  #state: "open" | "ending" | "closed" = "open";
  #waiting = false;
  #paused = false;
  #fault: string | undefined;

  constructor(readonly offer: Export, readonly wire: Wire, pool: BufferPool, readonly events: SessionEvents) {
    this.#negotiation = new Negotiation(offer, this.#input, (bytes) => { wire.send(bytes); });
    this.#out = new Outbox(wire, pool);
    wire.send(greeting());
  }

  /** Ends it: what is under way is answered first, and nothing more is begun. */
  end(): void {
    if (this.#state !== "open") return;
    this.#state = "ending";
    this.#transmission?.abandon();
    this.#endIfIdle();
  }

  data(bytes: Uint8Array): void {
    this.#input.push(bytes);
    this.#work();
  }

  drained(): void {
    this.#work();
  }

  closed(): void {
    if (this.#state === "closed") return;
    const wasIdle = this.#idle;
    this.#state = "closed";
    this.#transmission?.abandon();
    // What is under way still uses the disk.
    if (wasIdle) this.events.closed(this.#fault);
  }

  get #idle(): boolean {
    return (this.#transmission?.active ?? 0) === 0;
  }

  #work(): void {
    let work = 0;
    while (this.#state === "open" && !this.#waiting) {
      if (this.#blocked) this.#out.flush();
      if (this.#blocked) return this.#pause();
      const done = this.#transmission === undefined ? this.#negotiate() : this.#serve(this.#transmission);
      if (done === 0) break;
      work += done;
      if (work > TURN) this.#takeTurns();
    }
    this.#out.flush();
    if (!this.#waiting && this.#paused) {
      this.#paused = false;
      this.wire.resume();
    }
  }

  get #blocked(): boolean {
    return this.#transmission === undefined ? this.wire.unsent > MOST_UNHEARD : this.#transmission.full;
  }

  #pause(): void {
    this.#paused = true;
    this.wire.pause();
  }

  #takeTurns(): void {
    this.#waiting = true;
    this.#out.flush();
    this.#pause();
    this.wire.later(() => {
      this.#waiting = false;
      this.#work();
    });
  }

  #negotiate(): number {
    const step = this.#negotiation.step();
    if (step === "more") return 0;
    if (step === "hang up") this.#hangUp("it does not speak the protocol, or asks for an export that is not there");
    if (step === "end") this.end();
    if (step === "agreed") {
      this.#transmission = new Transmission(this.offer, this.#negotiation.agreement, this.#input, this.#out, () => { this.#progress(); }, (error) => { this.events.failed(error); });
      this.events.agreed();
    }
    return 1;
  }

  #serve(transmission: Transmission): number {
    const step = transmission.step();
    if (step === "hang up") this.#hangUp("it does not speak the protocol");
    else if (step === "end") this.end();
    else return step;
    return 1;
  }

  #hangUp(why: string): void {
    this.#fault = why;
    this.wire.destroy();
    this.closed();
  }

  /** A request that took time is answered. */
  #progress(): void {
    if (this.#state === "open") this.#work();
    else if (this.#state === "ending") this.#endIfIdle();
    else if (this.#idle) this.events.closed(this.#fault);
  }

  #endIfIdle(): void {
    if (!this.#idle) return;
    this.#out.flush();
    this.wire.end();
  }
}
