import { DiskError } from "../errors.ts";
import { formatNamed } from "../formats/registry.ts";
import { fullName } from "../gate.node.ts";
import { run } from "../task.ts";
import { SHARED } from "./arguments.ts";
import { type AccessOptions, diskOf, openImageFile } from "./images.ts";
import { withFileOptions } from "./fileOptions.ts";
import { makeFile } from "./newFile.ts";
import { OptionValues, optionHelp, splitOptions } from "./options.ts";
import { meterFor } from "./progress.ts";
import { sizeArgument } from "./sizes.ts";
import { sourceAccess } from "./source.ts";
import { type Call, CommandError, UsageError, type Verb } from "./verb.ts";

export const create: Verb = {
  usage: "[-f FMT] [-b BACKING -F FMT] [-u] [-o OPTIONS] [-q] FILE [SIZE]",
  about: `Makes an empty image; one that is there already is overwritten. SIZE is in bytes, or with k, M, G, T, P or E; above a
backing file it may be left out. A relative BACKING is relative to the new image.`,
  examples: [
    ["disk86 create -f qcow2 disk.qcow2 10G", "an empty disk"],
    ["disk86 create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2", "an overlay: changes go to top.qcow2, base.qcow2 stays as it is"],
    ["disk86 create -f qcow2 -o cluster_size=4k,compat=1.1 small.qcow2 64M", "with options of the format"],
    ["disk86 create -f qcow2 -o help", "which options the format has"],
  ],
  options: [
    { name: "format", short: "f", value: "FMT", help: "the new image's format; raw if not given" },
    { name: "backing", short: "b", value: "FILE", help: "the image it stands on" },
    { name: "backing-format", short: "F", value: "FMT", help: "the format of that one" },
    { name: "unsafe", short: "u", help: "do not look at the backing file; a size is needed then" },
    { name: "options", short: "o", value: "NAME=VALUE,...", help: "options of the format; a comma within a value is written twice" },
    SHARED.quiet, SHARED.object,
  ],
  run: runCreate,
};

async function runCreate(call: Call): Promise<number> {
  const formatName = call.value("format") ?? "raw", given = call.values("options").flatMap(splitOptions);
  if (given.some(([name]) => name === "help" || name === "?")) return help(call, formatName);
  const [file, size, extra] = call.positionals;
  if (file === undefined) throw new UsageError("Expecting image file name");
  const bytes = size === undefined ? undefined : sizeArgument(size, "image size");
  if (extra !== undefined) throw new UsageError(`Unexpected argument: ${extra}`);
  try {
    await createImage(call, file, formatName, given, bytes);
  } catch (error) {
    throw error instanceof CommandError ? new CommandError(`${file}: ${error.message}`, error.exitCode, { cause: error }) : DiskError.within(error, { path: file });
  }
  return 0;
}

function help(call: Call, formatName: string): number {
  const { options } = creationOf(formatName);
  call.output.out(optionHelp(formatName, call.positionals.length === 0 ? options : withFileOptions(options, formatName)));
  return 0;
}

export function creationOf(formatName: string) {
  const { creation } = formatNamed(formatName);
  if (creation === undefined) throw new CommandError(`Format driver '${formatName}' does not support image creation`);
  return creation;
}

async function createImage(call: Call, file: string, formatName: string, given: readonly (readonly [string, string])[], size: number | undefined): Promise<void> {
  const creation = creationOf(formatName), values = new OptionValues(withFileOptions(creation.options, formatName));
  for (const [name, value] of given) values.set(name, value);
  if (size !== undefined && values.has("size")) throw new CommandError("The image size must be specified only once");
  if (size !== undefined) values.setSize(size);
  setBacking(values, formatName, call.value("backing"), call.value("backing-format"));
  const access = await sourceAccess(call);
  await checkBacking(values, file, call.has("unsafe"), access);
  if (!values.has("size")) throw new CommandError("Image creation needs a size parameter");
  if (!call.has("quiet")) call.output.out(`Formatting '${file}', fmt=${formatName} ${values.toString()}\n`);
  const plan = creation.plan(values.all(), access.secrets), meter = meterFor(call, "preallocating", 1);
  try {
    await makeFile(file, (into, files) => plan(into, files, (done, total) => { meter.update(done, total); }));
  } finally {
    meter.end();
  }
}

export function setBacking(values: OptionValues, formatName: string, file: string | undefined, format: string | undefined): void {
  const known = values.table.some(({ name }) => name === "backing_file");
  if (file !== undefined && !known) throw new CommandError(`Backing file not supported for file format '${formatName}'`);
  if (format !== undefined && !known) throw new CommandError(`Backing file format not supported for file format '${formatName}'`);
  if (file !== undefined) values.set("backing_file", file);
  if (format !== undefined) values.set("backing_fmt", format);
}

/** Opens the backing file with all below it, and takes the size from it if none was given. */
export async function checkBacking(values: OptionValues, file: string, unsafe: boolean, { secrets }: AccessOptions): Promise<void> {
  const backing = values.get("backing_file"), format = values.get("backing_fmt");
  if (backing === undefined) return;
  if (backing === file) throw new CommandError("Error: Trying to create an image with the same filename as the backing file");
  if (backing === "") throw new CommandError("Expected backing file name, got empty string");
  if (unsafe) {
    if (format === undefined) throw new CommandError("Backing file specified without backing format");
    return;
  }
  const access = { lock: true, secrets }, below = await openImageFile(fullName(String(backing), file), format === undefined ? undefined : String(format), access);
  const disk = await run(diskOf(below, access));
  try {
    if (format === undefined) throw new CommandError(`Backing file specified without backing format: give it with -F ${below.format.name} (that is what it looks like)`);
    if (!values.has("size")) values.setSize(disk.size);
  } finally {
    await disk.close();
  }
}
