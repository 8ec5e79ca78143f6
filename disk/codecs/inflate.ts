import { Z_BUF_ERROR, Z_FINISH, Z_OK, Z_STREAM_END, zlibInflate, zlibInflateInit2, zlibInflateReset, ZStream } from "pako";
import { DiskError } from "../errors.ts";
import type { Pending } from "../storage.ts";

/**
 * Unpacks raw deflate (no zlib header, windows up to 32 KiB) and fills `into` exactly. What follows in `packed` is
 * ignored: qcow2 knows a compressed length only to 512 bytes, and QEMU too stops once the cluster is full. Writes
 * nothing outside `into`. Throws `DiskError` `corrupt` if the data is invalid or ends early; `into` is then undefined.
 */
export type Inflate = (packed: Uint8Array, into: Uint8Array) => void;

/** As `Inflate`, on another thread where the host has some; the buffers are in use until it is done. */
export type InflateLater = (packed: Uint8Array, into: Uint8Array) => Pending;

let fastest: Inflate = inflatePako;
let later: InflateLater = inflatePako;

/** The fastest decoder here: pako, unless the host's entry point chose another with `setInflate`. */
export const inflate: Inflate = (packed, into) => fastest(packed, into);

export const inflateLater: InflateLater = (packed, into) => later(packed, into);

/** Node's entry point gives its own, see inflate.node.ts. They must keep the contract of `Inflate`. */
export function setInflate(decoder: Inflate, onThread: InflateLater = decoder): void {
  fastest = decoder;
  later = onThread;
}

const NOTHING = new Uint8Array(0);
let stream: ZStream | undefined;

/** The decoder that is always there. One stream is reused, so this is not re-entrant; being synchronous, it need not be. */
export function inflatePako(packed: Uint8Array, into: Uint8Array): void {
  if (into.length === 0) return;
  const strm = stream ?? newStream();
  stream = undefined; // after a failure its window stays behind and slows it down: begin afresh then
  zlibInflateReset(strm);
  strm.input = packed;
  strm.next_in = 0;
  strm.avail_in = packed.length;
  strm.output = into as Uint8Array<ArrayBuffer>;
  strm.next_out = 0;
  strm.avail_out = into.length;
  const status = zlibInflate(strm, Z_FINISH);
  const { avail_out: missing, msg } = strm;
  strm.input = strm.output = NOTHING;
  if (missing > 0 || (status !== Z_STREAM_END && status !== Z_BUF_ERROR && status !== Z_OK)) {
    const reason = status === Z_BUF_ERROR || status === Z_STREAM_END ? `ends ${missing} bytes early` : `is invalid (${msg || `status ${status}`})`;
    throw new DiskError("corrupt", `compressed data ${reason}: the image is damaged`, { operation: "inflate" });
  }
  if (status === Z_STREAM_END) stream = strm;
}

function newStream(): ZStream {
  const strm = new ZStream();
  zlibInflateInit2(strm, -15);
  return strm;
}
