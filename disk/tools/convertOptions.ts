import { CACHES, SHARED } from "./arguments.ts";
import type { CopyOptions } from "./copy.ts";
import { sizeArgument } from "./sizes.ts";
import { type Call, CommandError, type OptionSpec } from "./verb.ts";

const SECTOR = 512, MOST_SPARSE = 16 << 20, USUAL_SPARSE = 4096;

export const CONVERT_OPTIONS: readonly OptionSpec[] = [
  { ...SHARED.format, help: "the sources' format; without it, it is probed" },
  { name: "output-format", short: "O", value: "FMT", help: "the new image's format; raw if not given" },
  { name: "options", short: "o", value: "NAME=VALUE,...", help: "options of that format, as for create" },
  { name: "backing", short: "B", value: "FILE", help: "the new image stands on this one; only what the source's own file has is copied" },
  { name: "backing-format", short: "F", value: "FMT", help: "the format of that one" },
  { name: "no-create", short: "n", help: "do not make the new image: it is there already" },
  { name: "target-is-zero", help: "with -n: it reads as zeros everywhere" },
  { name: "sparse-size", short: "S", value: "SIZE", help: "how many zeros in a row are left out; 4k if not given, 0: none" },
  SHARED.progress, SHARED.quiet, SHARED.forceShare,
  SHARED.cache, SHARED.sourceCache,
  { name: "compress", short: "c", help: "compress it; formats: qcow, qcow2, vmdk" },
  { name: "snapshot", short: "l", value: "SNAPSHOT", help: "copy the disk of this internal snapshot: its ID or name, or snapshot.id=ID,snapshot.name=NAME" },
  { name: "salvage", help: "go on after what cannot be read, with zeros instead" },
  { name: "rate-limit", short: "r", value: "SIZE", help: "how many bytes are written in a second at most" },
  { name: "coroutines", short: "m", value: "COUNT", help: "how many pieces are on their way at once; 8 if not given" },
  { name: "out-of-order", short: "W", help: "qemu-img's: accepted, makes no difference, as compression is parallel anyway" },
  { name: "copy-offloading", short: "C", help: "as qemu-img's: accepted, makes no difference" },
  { name: "bitmaps", help: "copy the persistent bitmaps of the source's own file too" },
  { name: "skip-broken-bitmaps", help: "with --bitmaps: leave out those that are inconsistent" },
  { name: "target-image-opts", help: "with -n: the target is named by options" },
  SHARED.imageOpts, SHARED.object,
];

export type HowToCopy = Omit<CopyOptions, "targetIsZero">;

/** How the options say that it is to be copied. Refuses what qemu-img refuses, of options whose values make no difference here too. */
export function copyOptions(call: Call): HowToCopy {
  const sparse = sparseSize(call.value("sparse-size")), rate = sizeArgument(call.value("rate-limit") ?? "0", "rate limit");
  const cache = call.value("cache") ?? "unsafe", coroutines = call.value("coroutines") ?? "8";
  if (!CACHES.has(cache)) throw new CommandError(`Invalid cache option: ${cache}`);
  if (!/^\d+$/.test(coroutines) || Number(coroutines) < 1 || Number(coroutines) > 16) throw new CommandError("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16");
  if (call.has("target-image-opts") && !call.has("no-create")) throw new CommandError("--target-image-opts requires use of -n flag");
  if (call.has("target-image-opts") && call.has("output-format")) throw new CommandError("--image-opts and --format are mutually exclusive");
  if (call.has("target-is-zero") && !call.has("no-create")) throw new CommandError("--target-is-zero requires use of -n flag");
  if (call.has("no-create") && call.has("options")) throw new CommandError("-o has no effect when skipping image creation");
  for (const option of ["sparse-size", "compress"]) if (call.has("copy-offloading") && call.has(option)) throw new CommandError(`Cannot enable copy offloading when ${option === "compress" ? "-c" : "-S"} is used`);
  if (call.has("copy-offloading") && call.has("salvage")) throw new CommandError("Cannot use copy offloading in salvaging mode");
  if (call.has("skip-broken-bitmaps") && !call.has("bitmaps")) throw new CommandError("Use of --skip-broken-bitmaps requires --bitmaps");
  return { sparse, rate, compress: call.has("compress"), depth: Number(coroutines) };
}

function sparseSize(text: string | undefined): number {
  if (text === undefined) return USUAL_SPARSE;
  const size = sizeArgument(text, "buffer size for sparse output");
  if (size % SECTOR !== 0 || size > MOST_SPARSE) throw new CommandError(`Invalid buffer size for sparse output specified. Valid sizes are multiples of ${SECTOR} up to ${MOST_SPARSE}. Select 0 to disable sparse detection (fully allocates output).`);
  return size;
}
