import { inflateRawSync } from "node:zlib";
import { type Inflate, inflatePako } from "./inflate.ts";

/**
 * Node's own zlib, more than twice as fast as pako. Whatever is not a plain stream of exactly the right length -
 * damaged, or longer than `into` - is left to pako's judgement, so that the contract is one.
 */
export const inflateNode: Inflate = (packed, into) => {
  let unpacked: Uint8Array | undefined;
  try {
    // A little more room than needed, or zlib would ask for a second chunk only to see that the stream ends.
    unpacked = inflateRawSync(packed, { chunkSize: into.length + 64, maxOutputLength: Math.max(1, into.length) });
  } catch {
    // as below
  }
  if (unpacked?.length === into.length) into.set(unpacked);
  else inflatePako(packed, into);
};
