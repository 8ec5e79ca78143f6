import { fits, type GuestMemory, type Segment } from "./guest-memory.ts";

/** Bus Master IDE 1.0, 1.2: a physical region descriptor is an address, a byte count and an end mark. */
const PRD_SIZE = 8;
/** A table lies within 64 KiB. */
const PRD_MAX = 0x10000 / PRD_SIZE;
/** A count of 0. */
const PRD_FULL = 0x10000;
const PRD_LAST = 0x8000;

/** The regions of a transfer of `length` bytes; `undefined`: the table is too short, or not in RAM. */
export function physicalRegions(memory: GuestMemory, table: number, length: number): Segment[] | undefined {
  const segments: Segment[] = [];
  const view = memory.view();
  for (let entry = table, left = length; left > 0; entry += PRD_SIZE) {
    if (!fits(memory, entry, PRD_SIZE) || segments.length >= PRD_MAX) return undefined;
    const address = (view.getUint32(entry, true) & ~1) >>> 0;
    const count = Math.min(left, view.getUint16(entry + 4, true) || PRD_FULL);
    if (!fits(memory, address, count)) return undefined;
    segments.push({ address, length: count });
    left -= count;
    if (left > 0 && view.getUint16(entry + 6, true) & PRD_LAST) return undefined;
  }
  return segments;
}
