import type { Content, Entry } from "./l2-entry.ts";

/** What one subcluster is. */
export type Kind = "data" | "zero" | "backing";

export function kindOf({ present, zeros }: Content, sub: number): Kind {
  if (((present >>> sub) & 1) !== 0) return "data";
  return ((zeros >>> sub) & 1) !== 0 ? "zero" : "backing";
}

/** How many of the `subclusters` of one cluster, from `first` on, are of this kind. */
export function runOf({ present, zeros }: Content, first: number, kind: Kind, subclusters: number): number {
  return Math.min(subclusters - first, ones(kind === "data" ? present : kind === "zero" ? zeros : ~(present | zeros), first));
}

/** How many bits in a row, from bit `from` on, are set. */
function ones(mask: number, from: number): number {
  const clear = ~(mask >>> from);
  return clear === 0 ? 32 : 31 - Math.clz32(clear & -clear);
}

/** Whether `more`, `distance` bytes on, goes on in the same way; what contradicts itself does not. */
export function continues({ host, copied }: Entry, more: Entry, distance: number): boolean {
  const place = host === undefined ? undefined : host + distance;
  return more.packed === undefined && more.host === place && more.copied === copied && (more.present & more.zeros) === 0 && (place !== undefined || more.present === 0);
}

/** The subclusters, `block` bytes each, of the cluster at `start` that lie in `[from, end)`, whole or in part. */
export function touched(start: number, from: number, end: number, block: number, subclusters: number): number {
  return 2 ** Math.min(subclusters, Math.ceil((end - start) / block)) - 2 ** Math.max(0, Math.floor((from - start) / block));
}

/** From the first subcluster with data to behind the last one; `undefined`: there is none. */
export function span(present: number): { readonly from: number; readonly to: number } | undefined {
  return present === 0 ? undefined : { from: 31 - Math.clz32(present & -present), to: 32 - Math.clz32(present) };
}
