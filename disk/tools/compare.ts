import { Buffer } from "node:buffer";
import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import { call as later, type Task, wait } from "../task.ts";
import { checkSourceCache, SHARED } from "./arguments.ts";
import { openImageDisk } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { type Meter, meterFor } from "./progress.ts";
import { denseImages, type Entry, entryAt } from "./ranges.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, UsageError, type Verb } from "./verb.ts";

/** qemu-img's exit codes. */
const EXIT = { identical: 0, different: 1, open: 2, tables: 3, read: 4 } as const;
const CHUNK = 2 << 20, SECTOR = 512;
const ZEROS = Buffer.alloc(CHUNK);

export const compare: Verb = {
  usage: "[-f FMT] [-F FMT] [-s] [-p] [-q] [-U] FILE1 FILE2",
  about: `Tells whether a guest would read the same from two images. Where one is longer, the rest must be zeros.
Exit codes: 0 they are identical, 1 they differ, 2 one cannot be opened, 3 its tables cannot be read, 4 its data cannot.`,
  examples: [
    ["disk86 compare disk.raw disk.qcow2", "whether a conversion is right"],
    ["disk86 compare -s a.qcow2 b.qcow2", "also whether they have the same size and the same ranges allocated"],
  ],
  options: [
    { ...SHARED.format, help: "the first image's format; without it, it is probed" }, { name: "second-format", short: "F", value: "FMT", help: "the second one's" },
    { name: "strict", short: "s", help: "sizes and allocation must be the same too" }, SHARED.progress, SHARED.quiet, SHARED.forceShare,
    SHARED.sourceCache, SHARED.imageOpts, SHARED.object,
  ],
  run: runCompare,
};

async function runCompare(call: Call): Promise<number> {
  const [first, second, extra] = call.positionals;
  if (first === undefined || second === undefined || extra !== undefined) throw new UsageError("Expecting two image file names");
  checkSourceCache(call, EXIT.open);
  const format = sourceFormat(call, EXIT.open), secondFormat = call.value("second-format");
  if (secondFormat !== undefined && call.has("image-opts")) throw new CommandError("--image-opts and --format are mutually exclusive", EXIT.open);
  const meter = meterFor(call, "comparing", 2);
  try {
    const disks = await openBoth(call, [[first, format], [second, secondFormat]]);
    const say = (line: string): void => { if (!call.has("quiet")) call.output.out(`${line}\n`); };
    const difference = await runInterruptible(compareTask(disks, call.has("strict"), meter, say));
    say(difference ?? "Images are identical.");
    return difference === undefined ? EXIT.identical : EXIT.different;
  } finally {
    meter.end();
  }
}

async function openBoth(call: Call, files: readonly (readonly [string, string | undefined])[]): Promise<[Disk, Disk]> {
  const access = await sourceAccess(call), disks: Disk[] = [];
  try {
    for (const [file, format] of files) disks.push((await openImageDisk(file, format, access)).disk);
  } catch (error) {
    for (const disk of disks) await disk.close();
    throw error instanceof DiskError ? new CommandError(error.message, EXIT.open, { cause: error }) : error;
  }
  return disks as [Disk, Disk];
}

function* compareTask(disks: [Disk, Disk], strict: boolean, meter: Meter, say: (line: string) => void): Task<string | undefined> {
  try {
    return yield* compareDisks(new Side(disks[0]), new Side(disks[1]), strict, meter, say);
  } finally {
    for (const disk of disks) yield* later(() => disk.close());
  }
}

/** Says what differs; `undefined`: nothing. */
function* compareDisks(one: Side, two: Side, strict: boolean, meter: Meter, say: (line: string) => void): Task<string | undefined> {
  const common = Math.min(one.size, two.size), all = Math.max(one.size, two.size);
  meter.update(0, all);
  if (strict && one.size !== two.size) return "Strict mode: Image size mismatch!";
  for (let offset = 0; offset < common;) {
    const a = yield* one.entry(offset), b = yield* two.entry(offset), zero = a.zero && b.zero;
    if (strict && a.nature !== b.nature) return `Strict mode: Offset ${offset} block status mismatch!`;
    const length = Math.min(a.length, b.length, common - offset, zero ? Infinity : CHUNK);
    const differs = zero ? undefined : firstDifference(yield* one.bytes(a, offset, length), yield* two.bytes(b, offset, length));
    if (differs !== undefined) return mismatch(offset + differs);
    offset += length;
    meter.update(offset, all);
  }
  if (one.size === two.size) return undefined;
  say("Warning: Image size mismatch!");
  return yield* rest(one.size > two.size ? one : two, common, meter);
}

/** Where the longer disk's rest is not zeros. */
function* rest(longer: Side, start: number, meter: Meter): Task<string | undefined> {
  for (let offset = start; offset < longer.size;) {
    const entry = yield* longer.entry(offset), length = entry.zero ? entry.length : Math.min(entry.length, CHUNK);
    const differs = entry.zero ? undefined : firstDifference(yield* longer.bytes(entry, offset, length), ZEROS.subarray(0, length));
    if (differs !== undefined) return mismatch(offset + differs);
    offset += length;
    meter.update(offset, longer.size);
  }
  return undefined;
}

function mismatch(offset: number): string {
  return `Content mismatch at offset ${offset}!`;
}

/** The first sector that differs; both are equally long. */
function firstDifference(a: Buffer, b: Buffer): number | undefined {
  if (a.equals(b)) return undefined;
  let at = 0;
  while (a.subarray(at, at + SECTOR).equals(b.subarray(at, at + SECTOR))) at += SECTOR;
  return at;
}

interface Range { readonly length: number; readonly zero: boolean; readonly nature: string }

/** One of the two disks, with a buffer of its own. */
class Side {
  readonly size: number;
  readonly #dense: readonly boolean[];
  readonly #buffer = Buffer.allocUnsafe(CHUNK);

  constructor(readonly disk: Disk) {
    this.size = disk.size;
    this.#dense = denseImages(disk.chain);
  }

  *entry(offset: number): Task<Range> {
    try {
      const entry = yield* entryAt(this.disk.chain, offset, this.size - offset, this.#dense);
      return { length: entry.length, zero: entry.zero, nature: this.#nature(entry, offset) };
    } catch (error) {
      throw error instanceof DiskError ? new CommandError(error.message, EXIT.tables, { cause: error }) : error;
    }
  }

  /** What -s compares. Zeros above a backing file that ends before them count as allocated; the disk's end is a part of it. */
  #nature({ present, depth, zero, data, offset, length }: Entry, at: number): string {
    return JSON.stringify([present || depth + 1 < this.disk.chain.length, zero, data, offset !== undefined, at + length === this.size]);
  }

  /** The range's bytes; they stand until the next call. */
  *bytes({ zero }: Range, offset: number, length: number): Task<Buffer> {
    if (zero) return ZEROS.subarray(0, length);
    const into = this.#buffer.subarray(0, length);
    try {
      yield wait(() => this.disk.read(offset, into));
    } catch (error) {
      throw error instanceof DiskError ? new CommandError(error.message, EXIT.read, { cause: error }) : error;
    }
    return into;
  }
}
