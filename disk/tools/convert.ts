import { availableParallelism } from "node:os";
import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import type { NewFiles } from "../formats/creation.ts";
import { formatNamed } from "../formats/registry.ts";
import { resolveName } from "../gate.node.ts";
import { isNbd } from "../names/nbd.ts";
import { openDisk } from "../open.ts";
import type { Storage } from "../storage.ts";
import { call as later, run, type Task } from "../task.ts";
import { checkSourceCache } from "./arguments.ts";
import { copyDisks, type CopyOptions } from "./copy.ts";
import { checkBacking, creationOf, setBacking } from "./create.ts";
import { withFileOptions } from "./fileOptions.ts";
import { openImageDisk } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { makeFile } from "./newFile.ts";
import { OptionValues, optionHelp, splitOptions } from "./options.ts";
import { type Meter, meterFor } from "./progress.ts";
import { CONVERT_OPTIONS, copyOptions, type HowToCopy } from "./convertOptions.ts";
import { parseSnapshot } from "./snapshotOption.ts";
import { refuseSame } from "./sameFile.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { Sources } from "./sources.ts";
import { type Call, CommandError, type Verb } from "./verb.ts";

export const convert: Verb = {
  usage: "[-f FMT] [-O FMT] [-o OPTIONS] [-B BACKING -F FMT] [-n] [-c] [-S SIZE] [-l SNAPSHOT] [-p] [-q] [-U] FILE|URL... OUT",
  about: `Copies what a guest reads from an image, with all it stands on, to a new image of any format; of several images one
behind the other. Zeros take no space in it. A new file gets its name when it is complete; one that is there is overwritten.`,
  examples: [
    ["disk86 convert -O qcow2 disk.img disk.qcow2", "raw to qcow2"],
    ["disk86 convert top.qcow2 disk.img", "an overlay, with all it stands on, to raw"],
    ["disk86 convert -c -O qcow2 disk.img small.qcow2", "compressed, on several processors"],
    ["disk86 convert -l before -O qcow2 disk.qcow2 old.qcow2", "the disk as it was at the internal snapshot 'before'"],
    ["disk86 convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 new.qcow2", "an overlay to a new one on the same base"],
    ["disk86 convert -n -O qcow2 disk.img made-before.qcow2", "into an image that was made before"],
  ],
  options: CONVERT_OPTIONS,
  run: runConvert,
};

async function runConvert(call: Call): Promise<number> {
  const formatName = call.value("output-format") ?? "raw", given = call.values("options").flatMap(splitOptions);
  const how = copyOptions(call);
  checkSourceCache(call);
  if (given.some(([name]) => name === "help" || name === "?")) {
    call.output.out(optionHelp(formatName, creationOf(formatName).options));
    return 0;
  }
  const files = call.positionals.slice(0, -1), out = call.positionals.at(-1);
  if (files.length === 0 || out === undefined) throw new CommandError("Must specify image file name");
  const values = call.has("no-create") ? undefined : targetValues(call, formatName, given);
  const job: Job = { call, disks: await openSources(call, files), formatName, how, meter: meterFor(call, "converting", 1) };
  try {
    if (call.has("bitmaps")) await prepareBitmaps(job);
    if (values === undefined) await fillExisting(job, out);
    else await makeTarget(job, isNbd(out) ? out : resolveName(out, ""), values);
  } finally {
    job.meter.end();
    for (const disk of job.disks) await disk.close();
  }
  return 0;
}

/** What is to be done, but for the target. */
interface Job {
  readonly call: Call;
  readonly disks: readonly Disk[];
  readonly formatName: string;
  readonly how: HowToCopy;
  readonly meter: Meter;
}

async function prepareBitmaps({ call, disks: [source, more] }: Job): Promise<void> {
  if (source === undefined || more !== undefined) throw new CommandError("Copying bitmaps only possible with single source");
  const { checkBitmaps } = await import("./copyBitmaps.ts");
  await run(checkBitmaps(source, call.has("skip-broken-bitmaps")));
}

/** What the new image's options say, but for its size. */
function targetValues(call: Call, formatName: string, given: readonly (readonly [string, string])[]): OptionValues {
  const values = new OptionValues(withFileOptions(creationOf(formatName).options, formatName));
  for (const [name, value] of given) values.set(name, value);
  setBacking(values, formatName, call.value("backing"), call.value("backing-format"));
  if (values.has("backing_file") && call.positionals.length > 2) throw new CommandError("Having a backing file for the target makes no sense when concatenating multiple input images");
  if (call.has("compress")) checkCompression(values);
  return values;
}

function checkCompression(values: OptionValues): void {
  if ((values.get("preallocation") ?? "off") !== "off") throw new CommandError("Compression and preallocation not supported at the same time");
  if (values.get("encryption") === true || values.has("encrypt.format")) throw new CommandError("Compression and encryption not supported at the same time");
}

async function openSources(call: Call, files: readonly string[]): Promise<Disk[]> {
  const chosen = call.value("snapshot"), snapshot = chosen === undefined ? undefined : parseSnapshot(chosen);
  if (snapshot !== undefined && files.length > 1) throw new CommandError("No support for concatenating multiple snapshot");
  // With two processors one unpacks and the other writes; threads of their own for unpacking cost more than they win then.
  const access = { ...(await sourceAccess(call)), snapshot, threads: availableParallelism() > 1 }, format = sourceFormat(call), disks: Disk[] = [];
  try {
    for (const file of files) disks.push((await openImageDisk(file, format, access)).disk);
  } catch (error) {
    for (const disk of disks) await disk.close();
    throw error;
  }
  return disks;
}

const totalSize = (disks: readonly Disk[]): number => disks.reduce((sum, { size }) => sum + size, 0);

async function makeTarget(job: Job, out: string, values: OptionValues): Promise<void> {
  const { call, disks, formatName } = job;
  try {
    refuseSame(disks, out);
    values.setSize(totalSize(disks));
    const access = await sourceAccess(call), id = values.get("encrypt.key-secret"), secret = id === undefined ? undefined : access.secrets?.get(String(id));
    await checkBacking(values, out, false, access);
    const create = creationOf(formatName).plan(values.all(), access.secrets), backed = values.has("backing_file");
    const space = call.has("progress") ? undefined : meterFor(call, "preallocating", 1);
    // Other formats write new space one piece at a time: a thread would only be waited for.
    await makeFile(out, function* fill(into: Storage, files: NewFiles): Task {
      try {
        yield* create(into, files, (done, total) => { space?.update(done, total); });
      } finally {
        space?.end();
      }
      const target = yield* openDisk(into, { format: formatName, readOnly: false, gate: files, secret });
      yield* copyAndClose(job, target, { ...job.how, targetIsZero: !backed }, backed);
    }, formatName === "raw");
  } catch (error) {
    throw error instanceof CommandError && error.exitCode === 1 ? new CommandError(`${out}: ${error.message}`, 1, { cause: error }) : DiskError.within(error, { path: out });
  }
}

/** `-n`. What the target has behind the sources' end stays. */
async function fillExisting(job: Job, out: string): Promise<void> {
  const { call, disks, formatName } = job, imageOpts = call.has("target-image-opts"), access = { ...(await sourceAccess(call)), lock: true, writable: true, imageOpts };
  const { disk: target } = await openImageDisk(out, imageOpts ? undefined : formatNamed(formatName).name, access);
  try {
    refuseSame(disks, target.name);
    if (target.size < totalSize(disks)) throw new CommandError(`${out}: output file is smaller than input file`);
  } catch (error) {
    await target.close();
    throw error;
  }
  await runInterruptible(copyAndClose(job, target, { ...job.how, targetIsZero: call.has("target-is-zero") }, call.has("backing")));
}

/** With --salvage the copy goes on after what cannot be read, and tells of it. */
function sourcesOf({ call, disks }: Job, topOnly: boolean): Sources {
  if (!call.has("salvage")) return new Sources(disks, topOnly);
  return new Sources(disks, topOnly, (what, offset, error) => {
    warn(call, `error while reading ${what} ${offset}: ${error.message}`);
  });
}

function warn(call: Call, text: string): void {
  if (!call.has("quiet")) call.output.error(`disk86: warning: ${text}\n`);
}

function* copyAndClose(job: Job, target: Disk, options: CopyOptions, topOnly: boolean): Task {
  try {
    if (options.compress && !target.packs) throw new CommandError("Compression not supported for this file format");
    yield* copyDisks(sourcesOf(job, topOnly), target, options, job.meter);
    const [source] = job.disks;
    if (source !== undefined && job.call.has("bitmaps")) yield* bitmapsToo(job.call, source, target);
  } finally {
    yield* later(() => target.close());
  }
}

function* bitmapsToo(call: Call, source: Disk, target: Disk): Task {
  const { copyBitmaps } = yield* later(() => import("./copyBitmaps.ts"));
  yield* copyBitmaps(source, target, (text) => { warn(call, text); });
}
