import type { Extent } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { flush, type Task } from "../../task.ts";
import { Grains } from "./grains.ts";
import { corrupt, LIMITS, SECTOR, unsupported } from "./header.ts";
import type { Part } from "./parts.ts";
import { SeSparseGrains } from "./seSparse.ts";

/** All grain directories of an image together, in bytes: enough for 512 TiB in grains of 64 KiB. */
const MAX_DIRECTORIES = 2 ** 26;

/** An extent, open. Offsets are its own: guest bytes from its start. */
export interface VmdkExtent {
  readonly part: Part;
  /** Where it is sparse. */
  readonly grains: Grains | undefined;
  map(offset: number, length: number): Extent | undefined;
  load(offset: number): Task;
  flush(): Task;
}

export function* openExtents(file: Storage, parts: readonly Part[], writable: boolean, tableCache: number): Task<VmdkExtent[]> {
  const entries = parts.reduce((sum, { header, seSparse }) => sum + (header?.entries ?? 2 * (seSparse?.entries ?? 0)), 0), sparse = parts.filter(({ header, seSparse }) => header !== undefined || seSparse !== undefined).length;
  if (entries * 4 > MAX_DIRECTORIES) throw unsupported(file, `grain directories of ${entries} entries; disk86's bound is ${MAX_DIRECTORIES / 4}`);
  if (writable) refuseWriting(file, parts);
  const extents: VmdkExtent[] = [];
  for (const part of parts) {
    const { storage, header, length } = part;
    if (part.seSparse !== undefined) extents.push(new SeSparseExtent(part, yield* SeSparseGrains.open(storage, part.seSparse, tableCache / sparse)));
    else if (header === undefined) extents.push(part.offset === undefined ? new ZeroExtent(part) : new FlatExtent(part, writable));
    else extents.push(new SparseExtent(part, yield* Grains.open(storage, header, length, writable, tableCache / sparse)));
  }
  return extents;
}

/** What cannot be written at all, by name. */
function refuseWriting(file: Storage, parts: readonly Part[]): void {
  const sizes = new Set(parts.flatMap(({ header }) => header?.grainSize ?? [])), [grainSize = SECTOR] = sizes;
  if (sizes.size > 1) throw unsupported(file, "extents with grains of different sizes can only be read: convert the image");
  if (grainSize > LIMITS.wholeGrain) throw unsupported(file, `grains of ${grainSize} bytes can only be read; disk86's bound for writing is ${LIMITS.wholeGrain}`);
  if (new Set(parts.map(({ header }) => header?.compressed === true)).size > 1) throw unsupported(file, "extents of which only some are compressed can only be read: convert the image");
  for (const [index, { storage, header, start, length, offset, fixed, type }] of parts.entries()) {
    if (fixed) throw unsupported(file, `an extent ${type === "ZERO" || type === "SESPARSE" ? `of type ${type}` : "that is not RW"} can only be read: put an overlay on the image, or convert it`);
    if (offset !== undefined && offset + length > storage.size) throw corrupt(storage, `the file is truncated: it has ${storage.size} of ${offset + length} bytes; the image can only be read`);
    // A grain is the guest's as a whole: it ends with its extent, or is the disk's last.
    if ((header ?? parts[index - 1]?.header) !== undefined && start % grainSize !== 0) throw unsupported(file, "an extent that does not begin where a grain does can only be read: convert the image");
    if (header === undefined) continue;
    if (header.footer) throw unsupported(storage, "a finished stream (streamOptimized with a footer) can only be read: put an overlay on it, or convert it");
    if (header.compressed && !header.markers) throw unsupported(storage, "compressed grains without markers can only be read: convert the image");
    if (header.version === 3 && !header.compressed) throw unsupported(storage, "VMDK version 3 must be read only: its changes are tracked by VMware alone; convert it");
  }
}

class FlatExtent implements VmdkExtent {
  readonly grains = undefined;

  constructor(readonly part: Part, readonly writable: boolean) {}

  map(offset: number, length: number): Extent {
    const host = (this.part.offset ?? 0) + offset, present = Math.ceil(this.part.storage.size / SECTOR) * SECTOR - host;
    if (present <= 0) throw corrupt(this.part.storage, "the file is truncated: it ends before the extent does", host);
    return { kind: "data", length: Math.min(length, present), storage: this.part.storage, offset: host, writable: this.writable, sparse: true };
  }

  *load(): Task {}

  *flush(): Task {
    yield flush(this.part.storage, "guest data");
  }
}

class ZeroExtent implements VmdkExtent {
  readonly grains = undefined;

  constructor(readonly part: Part) {}

  map(_offset: number, length: number): Extent {
    return { kind: "zero", length };
  }

  *load(): Task {}

  *flush(): Task {}
}

class SeSparseExtent implements VmdkExtent {
  readonly grains = undefined;

  constructor(readonly part: Part, readonly seSparse: SeSparseGrains) {}

  map(offset: number, length: number): Extent | undefined {
    return this.seSparse.map(offset, length);
  }

  load(offset: number): Task {
    return this.seSparse.load(offset);
  }

  *flush(): Task {}
}

class SparseExtent implements VmdkExtent {
  constructor(readonly part: Part, readonly grains: Grains) {}

  map(offset: number, length: number): Extent | undefined {
    return this.grains.map(offset, length);
  }

  load(offset: number): Task {
    return this.grains.load(offset);
  }

  flush(): Task {
    return this.grains.flush();
  }
}
