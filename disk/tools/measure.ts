import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import type { Creation } from "../formats/creation.ts";
import type { FormatInfo, InfoObject } from "../formats/info.ts";
import { FORMATS } from "../formats/registry.ts";
import { run, type Task } from "../task.ts";
import { outputFormat, SHARED } from "./arguments.ts";
import { diskOf, openImageFile } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { toJson } from "./json.ts";
import { OptionValues, splitOptions } from "./options.ts";
import { denseImages, entryAt } from "./ranges.ts";
import { integer, sizeArgument } from "./sizes.ts";
import { parseSnapshot } from "./snapshotOption.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, type Verb } from "./verb.ts";

export const measure: Verb = {
  usage: "[-O FMT] [-o OPTIONS] [--output=human|json] {--size SIZE | [-f FMT] [-l SNAPSHOT] [-U] FILE}",
  about: `Tells how large the file of a new image would be: empty or with what FILE has, and when all of it is written to.
Nothing is made. qcow2 and raw can be measured.`,
  examples: [
    ["disk86 measure -O qcow2 disk.img", "what converting disk.img to qcow2 needs"],
    ["disk86 measure -O qcow2 -o cluster_size=4k --size 100G", "an empty image with small clusters"],
  ],
  options: [
    { name: "output-format", short: "O", value: "FMT", help: "the new image's format; raw if not given" },
    { name: "options", short: "o", value: "NAME=VALUE,...", help: "options of that format, as for create" },
    { name: "size", value: "SIZE", help: "of an empty disk; instead of FILE" },
    { name: "snapshot", short: "l", value: "SNAPSHOT", help: "the disk of this internal snapshot" },
    { ...SHARED.format, help: "FILE's format; without it, it is probed" }, SHARED.output, SHARED.forceShare, SHARED.imageOpts, SHARED.object,
  ],
  run: runMeasure,
};

type Measurable = Creation & Required<Pick<Creation, "measure">>;

/** What FILE is, as far as it matters for a copy. */
interface Source { readonly disk: Disk; readonly info: FormatInfo }

async function runMeasure(call: Call): Promise<number> {
  const json = outputFormat(call) === "json", [file, extra] = call.positionals, given = call.value("size");
  const size = given === undefined ? undefined : sizeArgument(given, "image size");
  if (extra !== undefined) throw new CommandError("At most one filename argument is allowed.");
  const format = sourceFormat(call);
  if (file === undefined && ["image-opts", "format", "snapshot"].some((name) => call.has(name))) throw new CommandError("--image-opts, -f, and -l require a filename argument.");
  if (file === undefined && size === undefined) throw new CommandError("Either --size N or one filename must be specified.");
  if (file !== undefined && size !== undefined) throw new CommandError("--size N cannot be used together with a filename.");
  const { values, creation } = target(call), source = file === undefined ? undefined : await openSource(call, file, format);
  try {
    values.setSize(size ?? source?.disk.size ?? 0);
    print(call, json, await runInterruptible(measureTask(creation, values, source)));
  } finally {
    await source?.disk.close();
  }
  return 0;
}

function target(call: Call): { values: OptionValues; creation: Measurable } {
  const name = call.value("output-format") ?? "raw", format = FORMATS.find((one) => one.name === name);
  if (format === undefined) throw new CommandError(`Unknown file format '${name}'`);
  const { creation } = format, values = new OptionValues(creation?.options ?? []);
  if (creation?.measure === undefined) throw new CommandError(`Block driver '${name}' does not support size measurement`);
  for (const [option, value] of call.values("options").flatMap(splitOptions)) values.set(option, value);
  return { values, creation: creation as Measurable };
}

async function openSource(call: Call, file: string, format: string | undefined): Promise<Source> {
  const snapshot = call.value("snapshot"), access = { ...(await sourceAccess(call)), snapshot: snapshot === undefined ? undefined : parseSnapshot(snapshot) };
  const image = await openImageFile(file, format, access);
  let info: FormatInfo;
  try {
    info = await run(image.format.info(image.storage));
  } catch (error) {
    await image.storage.close();
    throw DiskError.within(error, { path: file, operation: "open" });
  }
  return { disk: await run(diskOf(image, access)), info };
}

/** QEMU's BlockMeasureInfo. */
function* measureTask(creation: Measurable, values: OptionValues, source: Source | undefined): Task<InfoObject> {
  const all = values.all();
  creation.plan(all);
  const { required, fullyAllocated } = yield* creation.measure(all, source && ((block) => dataIn(source.disk, block)));
  const bitmaps = source === undefined || all["compat"] === "0.10" || all["compat"] === "v2" ? undefined : bitmapBytes(source.info, Number(all["cluster_size"]));
  return { required, "fully-allocated": fullyAllocated, ...(bitmaps === undefined ? {} : { bitmaps }) };
}

/** The blocks that have anything but zeros, in bytes. */
function* dataIn(disk: Disk, block: number): Task<number> {
  const dense = denseImages(disk.chain);
  let bytes = 0;
  for (let offset = 0; offset < disk.size;) {
    const { zero, length } = yield* entryAt(disk.chain, offset, disk.size - offset, dense), end = zero ? offset + length : Math.ceil((offset + length) / block) * block;
    if (!zero) bytes += (offset % block) + (end - offset);
    offset = end;
  }
  return bytes;
}

/** What the source's bitmaps would take; `undefined`: one of the two images has none to tell of. */
function bitmapBytes({ specific, size }: FormatInfo, cluster: number): number | undefined {
  const { compat, bitmaps = [] } = (specific?.["data"] ?? {}) as { compat?: string; bitmaps?: readonly { name: string; granularity: number; flags: readonly string[] }[] };
  if (specific?.["type"] !== "qcow2" || compat === "0.10" || Number.isNaN(cluster)) return undefined;
  const up = (value: number, unit: number): number => Math.ceil(value / unit) * unit, usable = bitmaps.filter(({ flags }) => !flags.includes("in-use"));
  const contents = usable.reduce((sum, { granularity }) => {
    const clusters = Math.ceil(Math.ceil(Math.ceil(size / granularity) / 8) / cluster);
    return sum + clusters * cluster + up(clusters * 8, cluster);
  }, 0);
  return contents + up(usable.reduce((sum, { name }) => sum + up(24 + new TextEncoder().encode(name).length, 8), 0), cluster);
}

function print(call: Call, json: boolean, result: InfoObject): void {
  const { required, "fully-allocated": full, bitmaps } = result;
  if (json) return call.output.out(`${toJson(result)}\n`);
  call.output.out(`required size: ${integer(Number(required))}\nfully allocated size: ${integer(Number(full))}\n${bitmaps === undefined ? "" : `bitmaps size: ${integer(Number(bitmaps))}\n`}`);
}
