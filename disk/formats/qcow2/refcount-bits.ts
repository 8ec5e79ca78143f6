import { getU64, setU64 } from "../../bytes/struct.ts";

/**
 * Reads and writes one refcount of a block. docs/interop/qcow2.rst, "Host cluster management": widths under a byte
 * are packed from the least significant bit of each byte; wider ones are big-endian.
 */
export interface RefcountWidth {
  readonly max: number;
  get(view: DataView, index: number): number;
  set(view: DataView, index: number, value: number): void;
  /** The bytes that hold entries `[first, last]`. */
  bytes(first: number, last: number): { from: number; to: number };
}

/** `order`: log2 of the bits, 0 to 6. Refcounts of 64 bits are held to 2^53 - 1. */
export function refcountWidth(order: number): RefcountWidth {
  const bits = 2 ** order;
  const bytes = (first: number, last: number) => ({ from: Math.floor((first * bits) / 8), to: Math.floor((last * bits) / 8) + Math.max(1, bits / 8) });
  if (order === 4) return { max: 0xffff, bytes, get: (view, index) => view.getUint16(index * 2), set: (view, index, value) => { view.setUint16(index * 2, value); } };
  if (order === 5) return { max: 0xffff_ffff, bytes, get: (view, index) => view.getUint32(index * 4), set: (view, index, value) => { view.setUint32(index * 4, value); } };
  if (order === 6) return { max: Number.MAX_SAFE_INTEGER, bytes, get: (view, index) => getU64(view, index * 8), set: (view, index, value) => { setU64(view, index * 8, value); } };
  const perByte = 8 / bits, mask = 2 ** bits - 1;
  return {
    max: mask, bytes,
    get: (view, index) => (view.getUint8(Math.floor(index / perByte)) >>> ((index % perByte) * bits)) & mask,
    set: (view, index, value) => {
      const at = Math.floor(index / perByte), shift = (index % perByte) * bits;
      view.setUint8(at, (view.getUint8(at) & ~(mask << shift)) | (value << shift));
    },
  };
}
