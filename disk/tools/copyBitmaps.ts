import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import type { Bitmaps } from "../image.ts";
import type { Task } from "../task.ts";
import { bitmapsOf } from "./bitmap.ts";
import { CommandError } from "./verb.ts";

/** For `convert --bitmaps`, before anything is made: whether the source's bitmaps can be copied. */
export function* checkBitmaps(source: Disk, skipBroken: boolean): Task {
  const bitmaps = yield* bitmapsOf(source);
  if (bitmaps === undefined) throw new CommandError("Source lacks bitmap support");
  const broken = bitmaps.list().find(({ inconsistent }) => inconsistent);
  if (broken !== undefined && !skipBroken) throw new CommandError(`Cannot copy inconsistent bitmap '${broken.name}'\nTry --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it`);
}

/**
 * Copies the persistent bitmaps of `source` to `target`, which is open for writing and stores them when it is closed.
 * `warn` hears of those that are left out because they are inconsistent.
 */
export function* copyBitmaps(source: Disk, target: Disk, warn: (text: string) => void): Task {
  const from = yield* bitmapsOf(source), to = yield* bitmapsOf(target);
  if (from === undefined) throw new CommandError("Source lacks bitmap support");
  if (to === undefined) throw new CommandError(`Format driver '${target.chain[0].format}' does not support bitmaps`);
  for (const { name, granularity, enabled, inconsistent } of from.list()) {
    if (inconsistent) warn(`Skipping inconsistent bitmap '${name}'`);
    else yield* copyBitmap(from, to, name, granularity, enabled);
  }
}

function* copyBitmap(from: Bitmaps, to: Bitmaps, name: string, granularity: number, enabled: boolean): Task {
  let doing = "create";
  try {
    to.add(name, granularity, enabled);
    doing = "populate";
    yield* to.merge(name, from, name);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    throw new CommandError(`Failed to ${doing} bitmap ${name}: ${error.what}`, 1, { cause: error });
  }
}
