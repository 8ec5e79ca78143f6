import { encodeText } from "../bytes/text.ts";
import { MAX_STRING, OPTION_MAGIC, OPTION_REPLY_MAGIC } from "./protocol.ts";

export function u16(value: number): number[] {
  return [(value >>> 8) & 0xff, value & 0xff];
}

export function u32(value: number): number[] {
  return [...u16(Math.floor(value / 65536)), ...u16(value % 65536)];
}

export function u64(value: number): number[] {
  return [...u32(Math.floor(value / 2 ** 32)), ...u32(value % 2 ** 32)];
}

/** A string as the protocol counts it: a length and UTF-8, without a NUL. */
export function counted(text: string): number[] {
  const bytes = encodeText(text);
  return [...u32(bytes.length), ...bytes];
}

/** An option as a client sends it. */
export function optionMessage(option: number, data: readonly number[]): Uint8Array {
  return Uint8Array.from([...OPTION_MAGIC.flatMap(u32), ...u32(option), ...u32(data.length), ...data]);
}

/** A server's answer to one. */
export function optionReply(option: number, type: number, data: readonly number[] = []): Uint8Array {
  return Uint8Array.from([...OPTION_REPLY_MAGIC.flatMap(u32), ...u32(option), ...u32(type), ...u32(data.length), ...data]);
}

/** What a message may say of an error, cut to what the protocol allows. */
export function errorText(text: string): Uint8Array {
  return encodeText(text.slice(0, MAX_STRING / 4));
}

/** Writes `value` (u32) to `into` at `at`; replies are made in place. */
export function put32(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 24;
  into[at + 1] = value >>> 16;
  into[at + 2] = value >>> 8;
  into[at + 3] = value;
}

export function put16(into: Uint8Array, at: number, value: number): void {
  into[at] = value >>> 8;
  into[at + 1] = value;
}

export function put64(into: Uint8Array, at: number, value: number): void {
  put32(into, at, Math.floor(value / 2 ** 32));
  put32(into, at + 4, value % 2 ** 32);
}
