import type { Disk } from "../disk.ts";
import { Filter } from "../filters/filter.ts";
import { SliceStorage } from "../filters/slice.ts";
import type { BlockStatus, Export } from "../nbd/export.ts";
import { ALLOCATION_DEPTH, BASE_ALLOCATION, MAX_REQUEST } from "../nbd/protocol.ts";
import type { Pending, Storage } from "../storage.ts";
import type { Task } from "../task.ts";
import { denseImages, entryAt } from "./ranges.ts";
import { sizeArgument } from "./sizes.ts";
import { type Call, CommandError } from "./verb.ts";

/** Requests smaller than a page serve nobody best. */
const LEAST_PREFERRED = 4096;

/** The disk as `serve` was asked to offer it. */
export function exportOf(call: Call, disk: Disk, shared: boolean): Export {
  const dense = denseImages(disk.chain), cache = call.value("cache"), { blockSize } = disk.chain[0];
  const start = sizeArgument(call.value("offset") ?? "0", "offset");
  if (start > disk.size) throw new CommandError(`the offset ${start} is behind the end of the image, which has ${disk.size} bytes`);
  return {
    name: call.value("export-name") ?? "", description: call.value("description"), shared,
    storage: asAsked(call, start === 0 ? disk : new SliceStorage(disk, start, disk.size - start)), readOnly: disk.readOnly,
    preferred: Number.isInteger(Math.log2(blockSize)) ? Math.min(Math.max(blockSize, LEAST_PREFERRED), MAX_REQUEST) : LEAST_PREFERRED,
    contexts: call.has("allocation-depth") ? [BASE_ALLOCATION, ALLOCATION_DEPTH] : [BASE_ALLOCATION],
    writeThrough: cache === "writethrough" || cache === "directsync",
    *status(offset, length): Task<BlockStatus> {
      const { length: found, data, zero, present, depth } = yield* entryAt(disk.chain, start + offset, length, dense);
      return { length: found, hole: !data, zero, depth: present ? depth : -1 };
    },
  };
}

function asAsked(call: Call, storage: Storage): Storage {
  const unsafe = call.value("cache") === "unsafe", keep = ["ignore", "off"].includes(call.value("discard") ?? "");
  return unsafe || keep ? new Inactive(storage, unsafe, keep) : storage;
}

/** Without flushes, without trims, or without either. */
class Inactive extends Filter {
  constructor(inner: Storage, readonly noFlush: boolean, readonly noDiscard: boolean) {
    super(inner);
  }

  override flush(barrier?: string): Pending {
    return this.noFlush ? undefined : super.flush(barrier);
  }

  override discard(offset: number, length: number): Pending {
    return this.noDiscard ? undefined : super.discard(offset, length);
  }
}
