import type { Disk } from "../disk.ts";
import { Filter } from "../filters/filter.ts";
import { SliceStorage } from "../filters/slice.ts";
import type { Export, MetaContext } from "../nbd/export.ts";
import { ALLOCATION_DEPTH, BASE_ALLOCATION, DIRTY_BITMAP, MAX_REQUEST, State } from "../nbd/protocol.ts";
import type { Pending, Storage } from "../storage.ts";
import { run } from "../task.ts";
import { denseImages, type Entry, entryAt } from "./ranges.ts";
import { sizeArgument } from "./sizes.ts";
import { type Call, CommandError } from "./verb.ts";

/** Requests smaller than a page serve nobody best. */
const LEAST_PREFERRED = 4096;

/** The disk as `serve` was asked to offer it. */
export async function exportOf(call: Call, disk: Disk, shared: boolean): Promise<Export> {
  const cache = call.value("cache"), { blockSize } = disk.chain[0], start = sizeArgument(call.value("offset") ?? "0", "offset");
  if (start > disk.size) throw new CommandError(`the offset ${start} is behind the end of the image, which has ${disk.size} bytes`);
  return {
    name: call.value("export-name") ?? "", description: call.value("description"), shared,
    storage: asAsked(call, start === 0 ? disk : new SliceStorage(disk, start, disk.size - start)), readOnly: disk.readOnly,
    preferred: Number.isInteger(Math.log2(blockSize)) ? Math.min(Math.max(blockSize, LEAST_PREFERRED), MAX_REQUEST) : LEAST_PREFERRED,
    contexts: await contextsOf(call, disk, start), writeThrough: cache === "writethrough" || cache === "directsync",
  };
}

async function contextsOf(call: Call, disk: Disk, start: number): Promise<Export["contexts"]> {
  const dense = denseImages(disk.chain), more: MetaContext[] = [];
  const context = (name: string, flagsOf: (entry: Entry) => number): MetaContext => ({
    name,
    *extent(offset, length) {
      const entry = yield* entryAt(disk.chain, start + offset, length, dense);
      return { length: entry.length, flags: flagsOf(entry) };
    },
  });
  if (call.has("allocation-depth")) more.push(context(ALLOCATION_DEPTH, ({ present, depth }) => (present ? depth + 1 : 0)));
  for (const name of call.values("bitmap")) more.push(await dirtyContext(disk, name, start));
  return [context(BASE_ALLOCATION, ({ data, zero }) => (data ? 0 : State.hole) | (zero ? State.zero : 0)), ...more];
}

/** The bitmap `name` of the first image in the chain that has one of that name. */
async function dirtyContext(disk: Disk, name: string, start: number): Promise<MetaContext> {
  for (const image of disk.chain) {
    const bitmaps = image.bitmaps === undefined ? undefined : await run(image.bitmaps()), found = bitmaps?.list().find((one) => one.name === name);
    if (bitmaps === undefined || found === undefined) continue;
    if (found.inconsistent) throw new CommandError(`Bitmap '${name}' is inconsistent and cannot be used: its writer died; disk86 bitmap --remove takes it away`);
    return {
      name: `${DIRTY_BITMAP}${name}`,
      *extent(offset, length) {
        const at = start + offset, dirty = yield* bitmaps.nextDirty(name, at);
        if (dirty === undefined) return { length, flags: 0 };
        return dirty.offset > at ? { length: dirty.offset - at, flags: 0 } : { length: dirty.offset + dirty.length - at, flags: 1 };
      },
    };
  }
  throw new CommandError(`Bitmap '${name}' is not found`);
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
