import { setU64 } from "../../bytes/struct.ts";

/** docs/interop/qcow2.rst, "Bitmap table". */
const RESERVED_HIGH = 0xff00_0000, RESERVED_LOW = 0x1fe, ALL_ONES = 1, LOW_OFFSET = 0xffff_fe00, HIGH = 2 ** 32;
export const BITMAP_TABLE_ENTRY = 8;

/** What stands behind one cluster of a bitmap: a host offset, or all of its bits. */
export type BitmapPage = number | "zeros" | "ones";

/** The table entry at `at`; `undefined`: it is none. */
export function bitmapPage(view: DataView, at: number, clusterSize: number): BitmapPage | undefined {
  const high = view.getUint32(at), low = view.getUint32(at + 4);
  if (high === 0 && (low & ~ALL_ONES) === 0) return low === 0 ? "zeros" : "ones";
  const offset = high * HIGH + ((low & LOW_OFFSET) >>> 0);
  return (high & RESERVED_HIGH) !== 0 || (low & (RESERVED_LOW | ALL_ONES)) !== 0 || offset % clusterSize !== 0 ? undefined : offset;
}

/** The table's bytes. */
export function formatBitmapTable(pages: readonly BitmapPage[]): Uint8Array {
  const into = new Uint8Array(pages.length * BITMAP_TABLE_ENTRY), view = new DataView(into.buffer);
  for (const [index, page] of pages.entries()) setU64(view, index * BITMAP_TABLE_ENTRY, page === "zeros" ? 0 : page === "ones" ? ALL_ONES : page);
  return into;
}
