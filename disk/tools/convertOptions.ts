import { CACHES, SHARED } from "./arguments.ts";
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
  { name: "cache", short: "t", value: "MODE", help: "qemu-img's cache mode: accepted, makes no difference" }, SHARED.sourceCache,
  { name: "coroutines", short: "m", value: "COUNT", help: "as qemu-img's: accepted, makes no difference" },
  { name: "out-of-order", short: "W", help: "as qemu-img's: accepted, makes no difference" },
  { name: "copy-offloading", short: "C", help: "as qemu-img's: accepted, makes no difference" },
  { name: "compress", short: "c", help: "", refused: "compressed writing is not there yet" },
  { name: "snapshot", short: "l", value: "SNAPSHOT", help: "", refused: "snapshots cannot be read yet" },
  { name: "rate-limit", short: "r", value: "RATE", help: "", refused: "it copies as fast as it can" },
  { name: "bitmaps", help: "", refused: "bitmaps cannot be copied yet" },
  { name: "skip-broken-bitmaps", help: "", refused: "bitmaps cannot be copied yet" },
  { name: "salvage", help: "", refused: "it stops at the first error" },
  { name: "target-image-opts", help: "with -n: the target is named by options" },
  SHARED.imageOpts, SHARED.object,
];

/** Refuses what qemu-img refuses, of options whose values make no difference here too. */
export function checkConvertOptions(call: Call): void {
  const cache = call.value("cache") ?? "unsafe", coroutines = call.value("coroutines") ?? "8";
  if (!CACHES.has(cache)) throw new CommandError(`Invalid cache option: ${cache}`);
  if (!/^\d+$/.test(coroutines) || Number(coroutines) < 1 || Number(coroutines) > 16) throw new CommandError("Invalid number of coroutines. Allowed number of coroutines is between 1 and 16");
  if (call.has("target-image-opts") && !call.has("no-create")) throw new CommandError("--target-image-opts requires use of -n flag");
  if (call.has("target-image-opts") && call.has("output-format")) throw new CommandError("--image-opts and --format are mutually exclusive");
  if (call.has("target-is-zero") && !call.has("no-create")) throw new CommandError("--target-is-zero requires use of -n flag");
  if (call.has("no-create") && call.has("options")) throw new CommandError("-o has no effect when skipping image creation");
  if (call.has("copy-offloading") && call.has("sparse-size")) throw new CommandError("Cannot enable copy offloading when -S is used");
}

export function sparseSize(text: string | undefined): number {
  if (text === undefined) return USUAL_SPARSE;
  const size = sizeArgument(text, "buffer size for sparse output");
  if (size % SECTOR !== 0 || size > MOST_SPARSE) throw new CommandError(`Invalid buffer size for sparse output specified. Valid sizes are multiples of ${SECTOR} up to ${MOST_SPARSE}. Select 0 to disable sparse detection (fully allocates output).`);
  return size;
}
