import { DiskError } from "../errors.ts";

const utf8 = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

/** A name from an image: UTF-8 that ends at the first NUL, if there is one. */
export function decodeText(bytes: Uint8Array, path: string): string {
  const nul = bytes.indexOf(0);
  try {
    return utf8.decode(nul < 0 ? bytes : bytes.subarray(0, nul));
  } catch (error) {
    throw new DiskError("corrupt", "a name in the image is not valid UTF-8", { path }, error);
  }
}

export function encodeText(text: string): Uint8Array {
  return encoder.encode(text);
}
