import { Buffer } from "node:buffer";
import type { Disk } from "../disk.ts";
import { call as later, type Task, wait } from "../task.ts";
import { checkCache, onlyFile, SHARED } from "./arguments.ts";
import { type AccessOptions, type ImageFile, openImageFile } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { type Meter, meterFor } from "./progress.ts";
import { denseImages, entryAt } from "./ranges.ts";
import { Rate } from "./rate.ts";
import { sizeArgument } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { openSplit } from "./splitChain.ts";
import type { Call, Verb } from "./verb.ts";

const CHUNK = 2 << 20;

export const commit: Verb = {
  usage: "[-f FMT] [-b BASE] [-d] [-r RATE] [-t MODE] [-p] [-q] FILE",
  about: `Writes what an overlay has into the image it stands on, which grows if it is smaller; then the overlay is emptied.
With -b it goes into an image further down, past those between: they are useless afterwards, and so is what else stands
on them. At any moment, whatever happens, the overlay reads as before.`,
  examples: [
    ["disk86 commit top.qcow2", "into its backing file; top.qcow2 is empty then, and can be used on"],
    ["disk86 commit -d top.qcow2", "the same, but top.qcow2 is not emptied: it is to be deleted"],
    ["disk86 commit -b base.qcow2 top.qcow2", "through all between them into base.qcow2"],
  ],
  options: [
    SHARED.format, { name: "base", short: "b", value: "BASE", help: "the image of the chain to write to; implies -d" },
    { name: "drop", short: "d", help: "do not empty the overlay" },
    { name: "rate-limit", short: "r", value: "RATE", help: "at most so many bytes a second" },
    SHARED.cache, SHARED.progress, SHARED.quiet, SHARED.imageOpts, SHARED.object,
  ],
  run: runCommit,
};

async function runCommit(call: Call): Promise<number> {
  const file = onlyFile(call), rate = new Rate(sizeArgument(call.value("rate-limit") ?? "0", "rate limit")), format = sourceFormat(call);
  checkCache(call);
  const access = { ...(await sourceAccess(call)), lock: true, writable: true }, top = await openImageFile(file, format, access), meter = meterFor(call, "committing", 1);
  const base = call.value("base"), empty = base === undefined && !call.has("drop");
  try {
    await runInterruptible(commitTask(top, base, access, (overlay, below) => commitDisk(overlay, below, empty, rate, meter)));
  } finally {
    meter.end();
  }
  if (!call.has("quiet")) call.output.out("Image committed.\n");
  return 0;
}

function* commitTask(top: ImageFile, name: string | undefined, access: AccessOptions, work: (overlay: Disk, base: Disk) => Task): Task {
  const { overlay, base } = yield* openSplit(top, name, access);
  try {
    yield* work(overlay, base);
  } finally {
    try {
      yield* later(() => base.close());
    } finally {
      yield* later(() => overlay.close());
    }
  }
}

/**
 * Writes what `overlay` has of its own into `base`, which it stands on, and then, with `empty`, empties it. It hides
 * what is written below until that is durable: it reads the same at any moment.
 */
export function* commitDisk(overlay: Disk, base: Disk, empty: boolean, rate: Rate, meter: Meter): Task {
  const dense = denseImages(overlay.chain), buffer = Buffer.allocUnsafe(CHUNK), { size } = overlay;
  meter.update(0, size);
  if (base.size < size) yield wait(() => base.truncate(size));
  for (let offset = 0; offset < size;) {
    const { present, zero, length } = yield* entryAt(overlay.chain, offset, size - offset, dense), copied = present && !zero;
    const count = copied ? Math.min(length, CHUNK - (offset % CHUNK)) : length;
    if (copied) yield* copy(overlay, base, offset, buffer.subarray(0, count), rate);
    else if (present) yield wait(() => base.zero(offset, count));
    offset += count;
    meter.update(offset, size);
  }
  yield wait(() => base.flush());
  const [above] = overlay.chain, [below] = base.chain;
  // An image that lies between cannot be written: it is useless from now on anyway.
  if (overlay.chain.length === 1 && above.adopt !== undefined) yield* above.adopt(below);
  if (empty) yield* overlay.empty();
  meter.update(1, 1);
}

function* copy(from: Disk, to: Disk, offset: number, bytes: Buffer, rate: Rate): Task {
  yield wait(() => from.read(offset, bytes));
  yield wait(() => to.write(offset, bytes));
  yield* rate.spent(bytes.length);
}
