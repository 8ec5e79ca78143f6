import type { Disk } from "../disk.ts";
import { type Progress, type Space, SPACES } from "../image.ts";
import { call as later, type Task, wait } from "../task.ts";
import { SHARED } from "./arguments.ts";
import { openImageDisk } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { meterFor } from "./progress.ts";
import { integer, parseSize } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, UsageError, type Verb } from "./verb.ts";

const SECTOR = 512, MAX = 2 ** 63, PIECE = 64 * 2 ** 20;

export const resize: Verb = {
  usage: "[-f FMT] [--shrink] [--preallocation=MODE] [-q] FILE [+|-]SIZE",
  about: `Changes the size of the guest's disk; + and - are relative to what it is. SIZE is in bytes, or with k, M, G, T, P or E.
What is new reads as zeros. The partitions and file systems on the disk stay as they are: they are the guest's to change.`,
  examples: [
    ["disk86 resize disk.qcow2 +10G", "10 GiB more"],
    ["disk86 resize -f raw disk.img 20G", "to 20 GiB"],
    ["disk86 resize --shrink disk.qcow2 5G", "to 5 GiB; what stands behind is lost"],
  ],
  options: [
    SHARED.format, { name: "shrink", help: "allow it to become smaller" },
    { name: "preallocation", value: "off|metadata|falloc|full", help: "whether what is new takes its space at once: in the tables, reserved in the file, written" },
    SHARED.quiet, SHARED.imageOpts, SHARED.object,
  ],
  lastIsOperand: true,
  run: runResize,
};

async function runResize(call: Call): Promise<number> {
  const { file, size } = operands(call);
  const space = spaceNamed(call.value("preallocation") ?? "off");
  const wanted = parseRelative(size), access = await sourceAccess(call);
  const { disk, guessed } = await openImageDisk(file, sourceFormat(call), { ...access, writable: true });
  const { format } = disk.chain[0];
  if (guessed && format === "raw") call.output.error(`WARNING: Image format was not specified for '${file}' and probing guessed raw.\nSpecify it with -f raw: what a guest wrote could look like another format.\n`);
  const meter = meterFor(call, "preallocating", 1);
  try {
    await runInterruptible(resizeTask(disk, wanted, { shrink: call.has("shrink"), space, progress: (done, total) => { meter.update(done, total); } }));
  } finally {
    meter.end();
  }
  if (!call.has("quiet")) call.output.out("Image resized.\n");
  return 0;
}

function operands({ positionals }: Call): { file: string; size: string } {
  const [file, size, extra] = positionals;
  if (file === undefined || size === undefined) throw new UsageError("Not enough arguments");
  if (extra !== undefined) throw new UsageError("Expecting image file name and size");
  return { file, size };
}

function spaceNamed(mode: string): Space | undefined {
  const space = SPACES.find((one) => one === mode);
  if (space === undefined && mode !== "off") throw new CommandError(`Invalid preallocation mode '${mode}'`);
  return space;
}

interface Resizing {
  /** It may become smaller. */
  readonly shrink: boolean;
  /** What is new takes its space at once. */
  readonly space: Space | undefined;
  readonly progress: Progress;
}

/** The new size, given the old one. */
function parseRelative(text: string): (old: number) => number {
  const sign = /^[+-]/.exec(text)?.[0], rest = sign === undefined ? text : text.slice(1), bytes = /^[+-]/.test(rest) ? undefined : parseSize(rest);
  if (bytes === undefined || bytes >= 2 ** 64) throw new CommandError("Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.");
  return (old) => (sign === undefined ? bytes : sign === "+" ? old + bytes : old - bytes);
}

function* resizeTask(disk: Disk, wanted: (old: number) => number, { shrink, space, progress }: Resizing): Task {
  try {
    const old = disk.size, size = roundedFor(disk, wanted(old));
    if (size <= old && space !== undefined) throw new CommandError("Preallocation can only be used for growing images");
    // Of nothing yet: where it is impossible the disk keeps its size.
    if (space !== undefined) yield wait(() => disk.preallocate(old, old, space));
    if (size < old && !shrink) throw new CommandError("Use the --shrink option to perform a shrink operation.\nShrinking an image deletes all data beyond its new end: make sure that nothing important is there.");
    if (space === undefined) yield wait(() => disk.truncate(size));
    else yield* growInFull(disk, size, space, progress);
  } finally {
    yield* later(() => disk.close());
  }
}

/** In pieces, so that signals are heard. What cannot be done in full is undone: the disk has its old size again. */
function* growInFull(disk: Disk, size: number, space: Space, progress: Progress): Task {
  const old = disk.size;
  try {
    yield wait(() => disk.truncate(size));
    for (let at = old; at < size; at += PIECE) {
      yield wait(() => disk.preallocate(at, Math.min(at + PIECE, size), space));
      progress(Math.min(at + PIECE, size) - old, size - old);
    }
  } catch (error) {
    yield wait(() => disk.truncate(old));
    throw error;
  }
}

/** A raw image is made of whole sectors, as qemu-img does; formats that record a size refuse others. */
function roundedFor(disk: Disk, size: number): number {
  const { format } = disk.chain[0];
  if (!(size > 0 && size < MAX)) throw new CommandError("New image size must be positive");
  if (!Number.isSafeInteger(size)) throw new CommandError(`A disk of ${integer(size)} bytes is larger than disk86 can address (8 PiB)`);
  if (size % SECTOR !== 0 && format !== "raw") throw new CommandError(`The new size must be a multiple of ${SECTOR}`);
  return Math.ceil(size / SECTOR) * SECTOR;
}
