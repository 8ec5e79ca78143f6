import type { ZSTDDecoder } from "zstddec";
import { DiskError } from "../errors.ts";
import type { Pending } from "../storage.ts";

let decoder: ZSTDDecoder | undefined;
let loading: Promise<void> | undefined;

/**
 * Loads the decoder, once: `unzstd` needs it. `undefined` when it is ready. Fails as `unsupported` where
 * WebAssembly, or `fetch` of a data: URL, is forbidden.
 */
export function zstdReady(): Pending {
  if (!decoder) return (loading ??= load());
}

async function load(): Promise<void> {
  try {
    const { ZSTDDecoder } = await import("zstddec");
    const fresh = new ZSTDDecoder();
    await fresh.init();
    decoder = fresh;
  } catch (error) {
    throw new DiskError("unsupported", "the zstd decoder does not start: allow WebAssembly and data: here (Content-Security-Policy: script-src 'wasm-unsafe-eval'; connect-src data:)", { operation: "unzstd" }, error);
  }
}

/**
 * Unpacks one or more zstd frames and fills `into` exactly; synchronous, after `zstdReady`. What follows in `packed`
 * is ignored once `into` is full, even if it looks like another frame: in a qcow2 image it is the next cluster's.
 * Writes nothing outside `into` and unpacks no more than its length. Throws `DiskError` `corrupt` if the data is
 * invalid, ends early, or a frame does not fit; `into` is then undefined.
 */
export function unzstd(packed: Uint8Array, into: Uint8Array): void {
  if (!decoder) throw new DiskError("invalid-argument", "the zstd decoder was not loaded: wait for zstdReady() first", { operation: "unzstd" });
  let at = 0;
  for (let done = 0; done < into.length;) {
    const { length, empty } = measureFrame(packed, at);
    if (!empty) done += unpackFrame(decoder, packed.subarray(at, at + length), into, done);
    at += length;
  }
}

function unpackFrame(decoder: ZSTDDecoder, frame: Uint8Array, into: Uint8Array, done: number): number {
  let bytes: Uint8Array;
  try {
    bytes = decoder.decode(frame, into.length - done);
  } catch (error) {
    throw damaged("cannot be unpacked", error);
  }
  if (bytes.length === 0) throw damaged("is invalid, or longer than its cluster"); // how zstddec tells any failure
  into.set(bytes, done);
  return bytes.length;
}

/** RFC 8878, 3.1. The decoder wants the exact length of a frame, which only its block headers tell. */
const FRAME_MAGIC = 0xfd2fb528;
const SKIPPABLE_MAGIC = 0x184d2a50;
const DICTIONARY_ID_BYTES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_BYTES = [0, 2, 4, 8] as const;
const BLOCK_RLE = 1;
const BLOCK_COMPRESSED = 2;
const BLOCK_RESERVED = 3;

interface Frame { readonly length: number; readonly empty: boolean }

/** How long the frame at `start` is, in bytes of `packed`; `empty`: it unpacks to nothing. */
function measureFrame(packed: Uint8Array, start: number): Frame {
  const view = new DataView(packed.buffer, packed.byteOffset, packed.byteLength);
  const need = (at: number, count: number): number => {
    if (at + count > packed.length) throw damaged("ends early");
    return at;
  };
  const magic = view.getUint32(need(start, 4), true);
  if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
    const length = 8 + view.getUint32(need(start + 4, 4), true);
    return { length: need(start, length) - start + length, empty: true };
  }
  if (magic !== FRAME_MAGIC) throw damaged("is invalid (no frame where one should begin)");
  const descriptor = view.getUint8(need(start + 4, 1));
  let at = start + 5 + headerBytes(descriptor);
  let empty = true;
  for (let last = false; !last;) {
    need(at, 3);
    const header = view.getUint16(at, true) | (view.getUint8(at + 2) << 16);
    const type = (header >> 1) & 3;
    const size = header >> 3;
    if (type === BLOCK_RESERVED) throw damaged("is invalid (a block of no known type)");
    last = (header & 1) === 1;
    empty &&= size === 0 && type !== BLOCK_COMPRESSED;
    at += 3 + (type === BLOCK_RLE ? 1 : size);
  }
  const checksum = descriptor & 4 ? 4 : 0;
  return { length: need(at, checksum) - start + checksum, empty };
}

/** How many bytes follow the frame header's descriptor: window, dictionary, content size. */
function headerBytes(descriptor: number): number {
  const singleSegment = (descriptor >> 5) & 1;
  const contentSize = CONTENT_SIZE_BYTES[(descriptor >> 6) as 0 | 1 | 2 | 3] || singleSegment;
  return (singleSegment ? 0 : 1) + DICTIONARY_ID_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3] + contentSize;
}

function damaged(how: string, cause?: unknown): DiskError {
  return new DiskError("corrupt", `zstd-compressed data ${how}: the image is damaged`, { operation: "unzstd" }, cause);
}
