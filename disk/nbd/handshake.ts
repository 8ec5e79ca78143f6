import { DiskError } from "../errors.ts";
import { counted, optionMessage, u16, u32 } from "./message.ts";
import {
  BASE_ALLOCATION, Flag, GREETING, Handshake, Info, INIT_MAGIC, isReplyError, MAX_REQUEST, Option, OPTION_MAGIC, OPTION_REPLY_HEADER, OPTION_REPLY_MAGIC, Reply, ReplyError,
} from "./protocol.ts";

/** What a server told of its export. */
export interface ServerExport {
  readonly size: number;
  readonly flags: number;
  /** Replies may come in chunks. */
  readonly structured: boolean;
  /** The ID of the context `base:allocation`; absent: the server has none. */
  readonly allocation: number | undefined;
  /** Offsets and lengths of requests are multiples of `least`, a power of two; lengths are `most` bytes at most. */
  readonly least: number;
  readonly most: number;
}

/** A conversation: it asks for so many bytes, and goes on when they are there. */
export type Conversation<T> = Generator<number, T, Uint8Array>;

/** Longer than any reply to an option of ours. */
const MAX_REPLY = 64 << 10;
/** More replies than any server has reason to send to one option. */
const MOST_REPLIES = 1000;
const LEAST_MOST = 1 << 16, MOST_LEAST = 1 << 16;
const PADDING = 124;

const text = new TextDecoder();
const broken = (what: string): DiskError => new DiskError("io", `the server does not keep to the NBD protocol: ${what}`);

/** The client's side of the fixed newstyle handshake, to the transmission phase of the export `name`. */
export function* handshake(name: string, send: (bytes: Uint8Array) => void): Conversation<ServerExport> {
  const flags = yield* greeted();
  send(Uint8Array.from(u32(flags)));
  const talk = new Talk(send);
  if ((flags & Handshake.fixedNewstyle) === 0) return yield* byName(name, send, flags, false);
  const structured = yield* talk.accepted(Option.structuredReply, []);
  const allocation = structured ? yield* selected(name, talk) : undefined;
  const found: { size?: number; flags?: number; least?: number; most?: number } = {};
  const refusal = yield* talk.ask(Option.go, [...counted(name), ...u16(1), ...u16(Info.blockSize)], (type, data) => { if (type === Reply.info) note(data, found); });
  if (refusal?.type === ReplyError.unsupported) return { ...yield* byName(name, send, flags, structured), allocation };
  if (refusal !== undefined) throw refused(name, refusal);
  if (found.size === undefined || found.flags === undefined) throw broken("it agreed on the export without telling its size");
  return { size: found.size, flags: found.flags, structured, allocation, least: found.least ?? 1, most: found.most ?? MAX_REQUEST };
}

/** The server's first message; answers the flags to send back. */
function* greeted(): Conversation<number> {
  const { view } = bytesOf(yield GREETING);
  if (view.getUint32(0) !== INIT_MAGIC[0] || view.getUint32(4) !== INIT_MAGIC[1]) throw new DiskError("invalid-argument", "what listens there is no NBD server");
  if (view.getUint32(8) !== OPTION_MAGIC[0] || view.getUint32(12) !== OPTION_MAGIC[1]) throw new DiskError("unsupported", "the server speaks the oldstyle NBD protocol, which nobody should any more: use a server from after 2013");
  return view.getUint16(16) & (Handshake.fixedNewstyle | Handshake.noZeroes);
}

/** Into the transmission phase without a word of what the server thinks of it: the way of servers that do not know GO. */
function* byName(name: string, send: (bytes: Uint8Array) => void, flags: number, structured: boolean): Conversation<ServerExport> {
  send(optionMessage(Option.exportName, counted(name).slice(4)));
  const { view } = bytesOf(yield 10);
  if ((flags & Handshake.noZeroes) === 0) yield PADDING;
  return { size: sizeAt(view, 0), flags: view.getUint16(8), structured, allocation: undefined, least: 1, most: MAX_REQUEST };
}

function* selected(name: string, talk: Talk): Conversation<number | undefined> {
  let id: number | undefined;
  yield* talk.ask(Option.setMetaContext, [...counted(name), ...u32(1), ...counted(BASE_ALLOCATION)], (type, data) => {
    if (type === Reply.metaContext && data.length >= 4 && text.decode(data.subarray(4)) === BASE_ALLOCATION) id = bytesOf(data).view.getUint32(0);
  });
  return id;
}

function note(data: Uint8Array, found: { size?: number; flags?: number; least?: number; most?: number }): void {
  const { view } = bytesOf(data), info = data.length >= 2 ? view.getUint16(0) : -1;
  if (info === Info.export && data.length === 12) {
    found.size = sizeAt(view, 2);
    found.flags = view.getUint16(10);
  }
  if (info !== Info.blockSize || data.length !== 14) return;
  const least = view.getUint32(2), most = view.getUint32(10);
  if (!Number.isInteger(Math.log2(least)) || least > MOST_LEAST || most < least) throw broken(`block sizes from ${least} to ${most}`);
  found.least = least;
  // 2^32 - 1 is "any size"; what is no multiple of the least size is meant down to one that is.
  found.most = Math.max(least, Math.min(most - (most % least), Math.max(MAX_REQUEST, LEAST_MOST)));
}

function sizeAt(view: DataView, at: number): number {
  const size = view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4);
  if (!Number.isSafeInteger(size)) throw broken(`a size of ${size} bytes`);
  return size;
}

interface Refusal { readonly type: number; readonly why: string }

function refused(name: string, { type, why }: Refusal): DiskError {
  const said = why === "" ? "" : `; it says: ${why}`;
  if (type === ReplyError.unknown) return new DiskError("not-found", `the server has no export '${name}': nbdinfo --list tells which it has${said}`);
  if (type === ReplyError.tlsRequired) return new DiskError("unsupported", `the server wants TLS, which is not there: use a tunnel${said}`);
  if (type === ReplyError.policy) return new DiskError("io", `the server does not let us in${said}`);
  if (type === ReplyError.shutdown) return new DiskError("io", `the server is going down${said}`);
  return new DiskError("io", `the server refuses the export '${name}' (error ${type - 2 ** 31})${said}`);
}

/** Options and their replies. */
class Talk {
  constructor(readonly send: (bytes: Uint8Array) => void) {}

  *accepted(option: number, data: readonly number[]): Conversation<boolean> {
    return (yield* this.ask(option, data, () => undefined)) === undefined;
  }

  /** Sends an option and reads its replies to the last one, which is acceptance (`undefined`) or a refusal. */
  *ask(option: number, data: readonly number[], each: (type: number, data: Uint8Array) => void): Conversation<Refusal | undefined> {
    this.send(optionMessage(option, data));
    for (let count = 0; count < MOST_REPLIES; count++) {
      const { view } = bytesOf(yield OPTION_REPLY_HEADER), type = view.getUint32(12), length = view.getUint32(16);
      if (view.getUint32(0) !== OPTION_REPLY_MAGIC[0] || view.getUint32(4) !== OPTION_REPLY_MAGIC[1] || view.getUint32(8) !== option) throw broken("that is no reply to what it was asked");
      if (length > MAX_REPLY) throw broken(`a reply of ${length} bytes`);
      const reply = length === 0 ? new Uint8Array(0) : yield length;
      if (type === Reply.ack) return undefined;
      if (isReplyError(type)) return { type, why: printable(text.decode(reply)) };
      each(type, reply);
    }
    throw broken("replies without end");
  }
}

/** What a server says goes to somebody's terminal. */
export function printable(said: string): string {
  // oxlint-disable-next-line no-control-regex -- they are what must not get there
  return said.slice(0, 300).replaceAll(/[\u0000-\u001f\u007f-\u009f]/g, " ").trim();
}

function bytesOf(bytes: Uint8Array): { view: DataView } {
  return { view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength) };
}

/** Whether the export can do something. */
export function can({ flags }: ServerExport, what: keyof typeof Flag): boolean {
  return (flags & Flag.hasFlags) !== 0 && (flags & Flag[what]) !== 0;
}
