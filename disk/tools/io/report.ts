import { integer } from "../sizes.ts";
import { amount, duration } from "./numbers.ts";

/** What qemu-io tells of a request that succeeded. `began`: by `performance.now()`; `terse`: its machine readable form. */
export function report(what: string, began: number, ended: number, offset: number, count: number, terse: boolean): string {
  const seconds = Math.max(ended - began, 1e-6) / 1000, perSecond = count / seconds, operations = 1 / seconds;
  if (terse) return `${count},1,${duration(seconds, true)},${perSecond.toFixed(3)},${operations.toFixed(3)}\n`;
  return `${what} ${count}/${count} bytes at offset ${integer(offset)}\n${amount(count)}, 1 ops; ${duration(seconds, false)} (${amount(perSecond)}/sec and ${operations.toFixed(4)} ops/sec)\n`;
}

const ROW = 16;

/** Bytes as qemu-io dumps them, a piece at a time. */
export function* dump(bytes: Uint8Array, offset: number): Generator<string> {
  for (let at = 0; at < bytes.length; at += ROW) {
    const row = [...bytes.subarray(at, at + ROW)];
    const hex = row.map((byte) => `${byte.toString(16).padStart(2, "0")} `).join("");
    const text = row.map((byte) => (/[0-9a-z]/i.test(String.fromCharCode(byte)) ? String.fromCharCode(byte) : ".")).join("");
    yield `${(offset + at).toString(16).padStart(8, "0")}:  ${hex} ${text}\n`;
  }
}
