import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import type { Bitmaps } from "../image.ts";
import type { Task } from "../task.ts";
import { SHARED } from "./arguments.ts";
import { openImageDisk } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { sizeArgument } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, type Verb } from "./verb.ts";

const ACTIONS = ["add", "remove", "clear", "enable", "disable", "merge"] as const;
type Action = (typeof ACTIONS)[number];

export const bitmap: Verb = {
  usage: "(--add | --remove | --clear | --enable | --disable | --merge SOURCE)... [-b FILE [-F FMT]] [-g SIZE] [-f FMT] FILE BITMAP",
  about: `Makes and changes an image's persistent bitmaps, which tell what a guest changed since: for incremental backups. The
actions are done in the order in which they are given. \`info\` lists the bitmaps.`,
  examples: [
    ["disk86 bitmap --add disk.qcow2 daily", "from now on tell of changes"],
    ["disk86 bitmap --add --disable --merge daily disk.qcow2 monday", "keep what it says now as another one"],
    ["disk86 bitmap --merge daily -b top.qcow2 -F qcow2 base.qcow2 daily", "add what another image's says"],
  ],
  options: [
    { name: "add", help: "make it" }, { name: "remove", help: "remove it" }, { name: "clear", help: "it tells of nothing any more" },
    { name: "enable", help: "it tells of changes from now on" }, { name: "disable", help: "it stays as it is from now on" },
    { name: "merge", value: "SOURCE", help: "it also tells of what bitmap SOURCE does" },
    { name: "source-file", short: "b", value: "FILE", help: "with --merge: the image that SOURCE is of" },
    { name: "source-format", short: "F", value: "FMT", help: "the format of that one" },
    { name: "granularity", short: "g", value: "SIZE", help: "with --add: the bytes that one bit stands for" },
    SHARED.format, SHARED.imageOpts, SHARED.object,
  ],
  run: runBitmap,
};

async function runBitmap(call: Call): Promise<number> {
  const [file, name, extra] = call.positionals, granularity = call.value("granularity");
  const bytes = granularity === undefined ? 0 : sizeArgument(granularity, "granularity");
  if (file === undefined || name === undefined || extra !== undefined) throw new CommandError("Expecting filename and bitmap name");
  const actions = call.given.filter((one): one is readonly [Action, string] => ACTIONS.some((action) => action === one[0]));
  checkTogether(call, actions);
  const access = await sourceAccess(call), from = call.value("source-file");
  const { disk } = await openImageDisk(file, sourceFormat(call), { ...access, writable: true });
  let source: Disk | undefined;
  try {
    if (from !== undefined) source = (await openImageDisk(from, call.value("source-format"), { lock: access.lock, secrets: access.secrets })).disk;
    await runInterruptible(changeBitmaps(disk, source ?? disk, actions, name, bytes));
  } finally {
    await source?.close();
    await disk.close();
  }
  return 0;
}

function checkTogether(call: Call, actions: readonly (readonly [Action, string])[]): void {
  const has = (wanted: Action): boolean => actions.some(([action]) => action === wanted);
  if (actions.length === 0) throw new CommandError("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  if (call.has("granularity") && !has("add")) throw new CommandError("granularity only supported with --add");
  if (call.has("source-format") && !call.has("source-file")) throw new CommandError("-F only supported with -b");
  if (call.has("source-file") && !has("merge")) throw new CommandError("Merge bitmap source file only supported with --merge");
}

/** One after the other; those before one that fails are done. */
function* changeBitmaps(disk: Disk, source: Disk, actions: readonly (readonly [Action, string])[], name: string, granularity: number): Task {
  for (const [action, operand] of actions) {
    try {
      const bitmaps = yield* bitmapsOf(disk);
      if (bitmaps === undefined) throw new CommandError(action === "add" ? `Can't store persistent bitmaps to ${disk.name}: Operation not supported` : `Dirty bitmap '${name}' not found`);
      yield* changeBitmap(bitmaps, action, name, granularity, source === disk ? bitmaps : yield* bitmapsOf(source), operand);
    } catch (error) {
      if (!(error instanceof DiskError || error instanceof CommandError)) throw error;
      throw new CommandError(`Operation ${action} on bitmap ${name} failed: ${error instanceof DiskError ? error.what : error.message}`, 1, { cause: error });
    }
  }
}

function* changeBitmap(bitmaps: Bitmaps, action: Action, name: string, granularity: number, source: Bitmaps | undefined, operand: string): Task {
  switch (action) {
    case "add": return bitmaps.add(name, granularity);
    case "remove": return bitmaps.remove(name);
    case "clear": return bitmaps.clear(name);
    case "enable": return bitmaps.enable(name, true);
    case "disable": return bitmaps.enable(name, false);
    case "merge":
      if (source === undefined) throw new CommandError(`Dirty bitmap '${operand}' not found`);
      yield* bitmaps.merge(name, source, operand);
  }
}

/** The bitmaps of a disk's top image, if its format has them. */
export function* bitmapsOf({ chain: [top] }: Disk): Task<Bitmaps | undefined> {
  return top.bitmaps === undefined ? undefined : yield* top.bitmaps();
}
