/**
 * The guest's physical RAM, as a device with bus mastering sees it. The wasm memory behind it may grow and then leave
 * old views detached, so views are taken anew after every wait and never kept.
 */
export interface GuestMemory {
  readonly size: number;
  bytes(): Uint8Array;
  view(): DataView;
  /** Says that a device changed these bytes: code compiled from them is thrown away. */
  written(address: number, length: number): void;
}

/** A run of guest RAM: one element of a scatter-gather list. */
export interface Segment { readonly address: number; readonly length: number }

export function fits(memory: GuestMemory, address: number, length: number): boolean {
  return address >= 0 && length >= 0 && address + length <= memory.size;
}

export function totalLength(segments: readonly Segment[]): number {
  return segments.reduce((sum, { length }) => sum + length, 0);
}

/** The part of a list from byte `start` on, `length` bytes long. */
export function slice(segments: readonly Segment[], start: number, length: number): Segment[] {
  const part: Segment[] = [];
  for (const segment of segments) {
    const from = Math.min(start, segment.length);
    const take = Math.min(segment.length - from, length);
    if (take > 0) part.push({ address: segment.address + from, length: take });
    start -= from;
    length -= take;
  }
  return part;
}

/** Copies guest RAM into `into`, until either ends. */
export function gather(memory: GuestMemory, segments: readonly Segment[], into: Uint8Array): void {
  const ram = memory.bytes();
  let at = 0;
  for (const { address, length } of segments) {
    const take = Math.min(length, into.length - at);
    into.set(ram.subarray(address, address + take), at);
    at += take;
  }
}

/** Copies `from` into guest RAM, until either ends. */
export function scatter(memory: GuestMemory, segments: readonly Segment[], from: Uint8Array): void {
  const ram = memory.bytes();
  let at = 0;
  for (const { address, length } of segments) {
    const take = Math.min(length, from.length - at);
    memory.written(address, take);
    ram.set(from.subarray(at, at + take), address);
    at += take;
  }
}
