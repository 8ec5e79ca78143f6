import { type Export, type MetaContext, transmissionFlags } from "./export.ts";
import type { Input } from "./input.ts";
import { counted, optionReply, u16, u32, u64 } from "./message.ts";
import { GREETING, Handshake, Info, INIT_MAGIC, MAX_REQUEST, MAX_STRING, Option, OPTION_HEADER, OPTION_MAGIC, Reply, ReplyError } from "./protocol.ts";

/** What a client and a server have agreed on. */
export interface Agreement {
  readonly structured: boolean;
  /** The metadata contexts selected; their IDs are their indices. */
  readonly contexts: readonly MetaContext[];
}

/** How a step ended: more bytes are needed; go on; the client chose the export; it is over, after what was sent or at once. */
export type Step = "more" | "next" | "agreed" | "end" | "hang up";

/** More than any option needs, with names of the longest. */
const MAX_OPTION = 64 << 10;
const PADDING = 124;
const TOO_LONG = "longer than 4096 bytes";

export function greeting(): Uint8Array {
  const bytes = [...INIT_MAGIC, ...OPTION_MAGIC].flatMap(u32).concat(u16(Handshake.fixedNewstyle | Handshake.noZeroes));
  if (bytes.length !== GREETING) throw new Error("the greeting has another length");
  return Uint8Array.from(bytes);
}

/** The server's side of the fixed newstyle handshake, behind the greeting. */
export class Negotiation {
  #clientFlags: number | undefined;
  #structured = false;
  #contexts: readonly MetaContext[] = [];

  constructor(readonly offer: Export, readonly input: Input, readonly send: (bytes: Uint8Array) => void) {}

  get agreement(): Agreement {
    return { structured: this.#structured, contexts: this.#contexts };
  }

  step(): Step {
    const { input } = this;
    if (this.#clientFlags === undefined) return input.length < 4 ? "more" : this.#flags(input.take(4));
    if (input.length < OPTION_HEADER) return "more";
    const length = input.u32(12);
    if (input.u32(0) !== OPTION_MAGIC[0] || input.u32(4) !== OPTION_MAGIC[1] || length > MAX_OPTION) return "hang up";
    if (input.length < OPTION_HEADER + length) return "more";
    const option = input.u32(8);
    input.skip(OPTION_HEADER);
    return this.#option(option, input.take(length));
  }

  #flags([, , , low = 0]: Uint8Array): Step {
    this.#clientFlags = low;
    return (low & ~(Handshake.fixedNewstyle | Handshake.noZeroes)) === 0 ? "next" : "hang up";
  }

  #option(option: number, data: Uint8Array): Step {
    switch (option) {
      case Option.exportName: return this.#exportName(data);
      case Option.abort: return this.#answer(option, Reply.ack, "end");
      case Option.list: return data.length > 0 ? this.#refuse(option, ReplyError.invalid, "LIST has no data") : this.#list();
      case Option.startTls: return this.#refuse(option, ReplyError.policy, "this server has no TLS: connect without it, through a tunnel if the network is not yours");
      case Option.info:
      case Option.go: return this.#info(option, data);
      case Option.structuredReply:
        if (data.length > 0) return this.#refuse(option, ReplyError.invalid, "STRUCTURED_REPLY has no data");
        this.#structured = true;
        return this.#answer(option, Reply.ack);
      case Option.listMetaContext:
      case Option.setMetaContext: return this.#metaContext(option, data);
      default: return this.#refuse(option, ReplyError.unsupported, "unknown option");
    }
  }

  #answer(option: number, type: number, step: Step = "next", data?: readonly number[]): Step {
    this.send(optionReply(option, type, data));
    return step;
  }

  #refuse(option: number, type: number, why: string): Step {
    return this.#answer(option, type, "next", counted(why).slice(4));
  }

  /** The one option that cannot be refused in words. */
  #exportName(data: Uint8Array): Step {
    if (decode(data) !== this.offer.name) return "hang up";
    const { size } = this.offer.storage, padding = ((this.#clientFlags ?? 0) & Handshake.noZeroes) === 0 ? PADDING : 0;
    this.send(Uint8Array.from([...u64(size), ...u16(this.#flagsOfExport()), ...Array.from({ length: padding }, () => 0)]));
    return "agreed";
  }

  #list(): Step {
    const { name, description } = this.offer;
    this.#answer(Option.list, Reply.server, "next", [...counted(name), ...counted(description ?? "").slice(4)]);
    return this.#answer(Option.list, Reply.ack);
  }

  #info(option: number, data: Uint8Array): Step {
    const fields = new Fields(data), name = fields.text(), count = fields.u16();
    const wanted = Array.from({ length: Math.min(count, MAX_OPTION) }, () => fields.u16());
    if (name === undefined || !fields.complete) return this.#refuse(option, ReplyError.invalid, "the option's data is not as it says");
    if (name !== this.offer.name) return this.#unknown(option, name);
    this.#tell(option, wanted);
    return this.#answer(option, Reply.ack, option === Option.go ? "agreed" : "next");
  }

  #tell(option: number, wanted: readonly number[]): void {
    const { name, description, storage, preferred } = this.offer;
    const tell = (info: number, data: readonly number[]): void => { this.#answer(option, Reply.info, "next", [...u16(info), ...data]); };
    if (wanted.includes(Info.name)) tell(Info.name, counted(name).slice(4));
    if (wanted.includes(Info.description) && description !== undefined) tell(Info.description, counted(description).slice(4));
    tell(Info.blockSize, [...u32(1), ...u32(preferred), ...u32(MAX_REQUEST)]);
    tell(Info.export, [...u64(storage.size), ...u16(this.#flagsOfExport())]);
  }

  #metaContext(option: number, data: Uint8Array): Step {
    const fields = new Fields(data), name = fields.text(), count = fields.u32();
    // Each query takes four bytes at least.
    const queries = Array.from({ length: Math.min(count, data.length / 4) }, () => fields.text());
    if (name === undefined || queries.includes(undefined) || queries.length < count || !fields.complete) return this.#refuse(option, ReplyError.invalid, "the option's data is not as it says");
    if (!this.#structured) return this.#refuse(option, ReplyError.invalid, "structured replies come first");
    if (name !== this.offer.name) return this.#unknown(option, name);
    const listing = option === Option.listMetaContext;
    const selected = this.offer.contexts.filter(({ name }) => (listing && count === 0) || queries.some((query) => query === name || (listing && query?.endsWith(":") && name.startsWith(query))));
    if (!listing) this.#contexts = selected;
    for (const [id, context] of selected.entries()) this.#answer(option, Reply.metaContext, "next", [...u32(listing ? 0 : id), ...counted(context.name).slice(4)]);
    return this.#answer(option, Reply.ack);
  }

  #unknown(option: number, name: string): Step {
    if (name.length > MAX_STRING) return this.#refuse(option, ReplyError.invalid, TOO_LONG);
    return this.#refuse(option, ReplyError.unknown, `there is no export '${name}'`);
  }

  #flagsOfExport(): number {
    return transmissionFlags(this.offer, this.#structured);
  }
}

const decoder = new TextDecoder();
const decode = (bytes: Uint8Array): string => decoder.decode(bytes);

/** Reads an option's data; what is missing reads as `undefined` or 0, and `complete` tells. */
class Fields {
  #at = 0;

  constructor(readonly data: Uint8Array) {}

  /** Whether everything asked for was there, and nothing more. */
  get complete(): boolean {
    return this.#at === this.data.length;
  }

  u16(): number {
    return this.#number(2);
  }

  u32(): number {
    return this.#number(4);
  }

  text(): string | undefined {
    const length = this.u32(), from = this.#at;
    this.#at += length;
    return this.#at <= this.data.length ? decode(this.data.subarray(from, this.#at)) : undefined;
  }

  #number(size: number): number {
    let value = 0;
    for (let i = 0; i < size; i++) value = value * 256 + (this.data[this.#at + i] ?? 0);
    this.#at += size;
    return value;
  }
}
