import { Z_DEFAULT_STRATEGY, Z_FINISH, Z_STREAM_END, zlibDeflate, zlibDeflateInit2, zlibDeflateReset, ZStream } from "pako";
import { DiskError } from "../errors.ts";

/**
 * `raw`: bare deflate with a window of 4 KiB, the largest that every reader of qcow and qcow2 has. `zlib`: with zlib's
 * header and checksum and a window of 32 KiB, for vmdk.
 */
export type DeflateForm = "raw" | "zlib";

/**
 * Compresses `block` with QEMU's parameters (level 6, most memory). The result is the caller's; incompressible data comes
 * out longer. `block` is in use until the call is done. Several may run at once, on several processors where the host can.
 */
export type Deflate = (block: Uint8Array, form: DeflateForm) => Uint8Array | Promise<Uint8Array>;

export const LEVEL = 6, MEMORY_LEVEL = 9, WINDOW_BITS = { raw: 12, zlib: 15 } as const satisfies Record<DeflateForm, number>;

let fastest: Deflate = deflatePako;

/** The fastest encoder here: pako, unless the host's entry point chose another with `setDeflate`. */
export const deflate: Deflate = (block, form) => fastest(block, form);

/** Node's entry point gives its own, see deflate.node.ts. It must keep the contract of `Deflate`. */
export function setDeflate(encoder: Deflate): void {
  fastest = encoder;
}

/** More than deflate can need for `length` bytes (zlib's deflateBound). */
export const deflateBound = (length: number): number => length + (length >> 2) + 64;

const NOTHING = new Uint8Array(0), METHOD_DEFLATED = 8;
/** One stream a form, reused: synchronous, so never in use twice. */
const streams = new Map<DeflateForm, ZStream>();

/** The encoder that is always there; synchronous. It writes the very bytes that zlib, and so QEMU, would. */
export function deflatePako(block: Uint8Array, form: DeflateForm): Uint8Array {
  const strm = streams.get(form) ?? newStream(form);
  streams.set(form, strm);
  zlibDeflateReset(strm);
  const output = new Uint8Array(deflateBound(block.length));
  strm.input = block;
  strm.next_in = 0;
  strm.avail_in = block.length;
  strm.output = output;
  strm.next_out = 0;
  strm.avail_out = output.length;
  const status = zlibDeflate(strm, Z_FINISH), length = strm.next_out;
  strm.input = strm.output = NOTHING;
  if (status !== Z_STREAM_END) throw new DiskError("io", `compressing failed (status ${status})`, { operation: "deflate" });
  return output.slice(0, length);
}

function newStream(form: DeflateForm): ZStream {
  const strm = new ZStream();
  zlibDeflateInit2(strm, LEVEL, METHOD_DEFLATED, form === "raw" ? -WINDOW_BITS.raw : WINDOW_BITS.zlib, MEMORY_LEVEL, Z_DEFAULT_STRATEGY, true);
  return strm;
}
