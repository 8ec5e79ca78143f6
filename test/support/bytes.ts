import { hex } from "../../disk/errors.ts";

/** Fails, naming the first offset that differs. Much faster than `toEqual` on large arrays. */
export function expectBytes(actual: Uint8Array, expected: Uint8Array, what = "bytes"): void {
  if (Buffer.compare(actual, expected) === 0) return;
  if (actual.length !== expected.length) throw new Error(`${what}: ${actual.length} bytes, expected ${expected.length}`);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  throw new Error(`${what} differ from offset ${hex(at)}: ${actual.subarray(at, at + 8).join(" ")}, expected ${expected.subarray(at, at + 8).join(" ")}`);
}
