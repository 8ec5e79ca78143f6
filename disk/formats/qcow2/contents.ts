import type { Content, Entry } from "./l2-entry.ts";

/** How subclusters are to read as zeros. */
export interface Clearing {
  /** They keep their space. */
  readonly keep: boolean;
  /** There is a backing file, which they must hide. */
  readonly hides: boolean;
  /** Version 2 has no zero flag. */
  readonly version3: boolean;
}

/** The entry once the subclusters `mask` of it (`all`: the bits of all) read as zeros; `undefined`: nothing changes. */
export function cleared(entry: Entry, mask: number, all: number, { keep, hides, version3 }: Clearing): Content | undefined {
  if (entry.packed !== undefined) return mask === all ? { host: undefined, copied: false, present: 0, zeros: version3 ? all : 0 } : undefined;
  const present = (entry.present & ~mask) >>> 0, zeros = version3 ? (entry.zeros | mask) >>> 0 : 0;
  // Without any data in it the cluster goes, too; one that is shared is no space of ours to keep.
  const host = present === 0 && !(keep && version3 && entry.copied) ? undefined : entry.host;
  const same = host === entry.host && present === entry.present && (!hides || zeros === entry.zeros);
  return same ? undefined : { host, copied: entry.copied, present, zeros };
}

/** The entry without the subclusters `mask`, which are no part of the disk any more. */
export function cutOff(entry: Entry, mask: number, all: number): Content | undefined {
  const rest = entry.packed === undefined ? { present: (entry.present & ~mask) >>> 0, zeros: (entry.zeros & ~mask) >>> 0 } : { present: 0, zeros: 0 };
  if (entry.packed !== undefined && mask !== all) return undefined;
  const host = rest.present === 0 && rest.zeros === 0 ? undefined : entry.host;
  const same = entry.packed === undefined && host === entry.host && rest.present === entry.present && rest.zeros === entry.zeros;
  return same ? undefined : { host, copied: entry.copied, ...rest };
}
