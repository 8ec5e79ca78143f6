import { Buffer } from "node:buffer";
import type { Disk } from "../disk.ts";
import { formatNamed } from "../formats/registry.ts";
import { openDisk } from "../open.ts";
import { call as later, type Task, wait } from "../task.ts";
import { SHARED } from "./arguments.ts";
import { creationOf } from "./create.ts";
import { openImageDisk } from "./images.ts";
import { makeFile } from "./newFile.ts";
import { OptionValues } from "./options.ts";
import { denseImages, entryAt } from "./ranges.ts";
import { refuseSame } from "./sameFile.ts";
import { sizeArgument } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, type Verb } from "./verb.ts";

const CHUNK = 2 << 20, LARGEST_BLOCK = 2 ** 31 - 1;

export const dd: Verb = {
  usage: "[-f FMT] [-O FMT] [-U] [bs=SIZE] [count=BLOCKS] [skip=BLOCKS] if=FILE|URL of=OUT",
  about: `Copies what a guest reads from an image, from block skip on, to a new image. Blocks have 512 bytes unless bs says
otherwise. As in qemu-img, count is reckoned from the image's beginning: the blocks skipped are among them.`,
  examples: [
    ["disk86 dd if=disk.qcow2 of=disk.img", "the whole disk, as raw"],
    ["disk86 dd if=disk.qcow2 of=boot.img count=1", "its first sector"],
    ["disk86 dd -O qcow2 bs=1M skip=1 if=disk.img of=rest.qcow2", "all but the first MiB"],
  ],
  options: [{ ...SHARED.format, help: "the source's format; without it, it is probed" }, { name: "output-format", short: "O", value: "FMT", help: "the new image's format; raw if not given" }, SHARED.forceShare, SHARED.imageOpts, SHARED.object],
  run: runDd,
};

interface Operands { readonly from: string; readonly to: string; readonly block: number; readonly count: number | undefined; readonly skip: number }

async function runDd(call: Call): Promise<number> {
  const { from, to, block, count, skip } = operands(call), name = call.value("output-format") ?? "raw", creation = creationOf(name);
  const { disk: source } = await openImageDisk(from, sourceFormat(call), await sourceAccess(call));
  try {
    refuseSame([source], to);
    const end = Math.min(source.size, count === undefined ? Infinity : count * block), start = Math.min(skip * block, end), values = new OptionValues(creation.options);
    values.setSize(end - start);
    const create = creation.plan(values.all());
    await makeFile(to, function* fill(into, files) {
      yield* create(into, files);
      const target = yield* openDisk(into, { format: formatNamed(name).name, readOnly: false, gate: files });
      try {
        yield* copyRange(source, start, end, target);
      } finally {
        yield* later(() => target.close());
      }
    });
    if (skip * block > source.size) call.output.error(`${call.output.name ?? "disk86"}: ${from}: cannot skip to specified offset\n`);
  } finally {
    await source.close();
  }
  return 0;
}

function operands({ positionals }: Call): Operands {
  const given = new Map<string, string>();
  for (const text of positionals) {
    const [, name = text, value] = /^([^=]*)=(.*)$/s.exec(text) ?? [];
    if (value === undefined || !["bs", "count", "if", "of", "skip"].includes(name)) throw new CommandError(`unrecognized operand ${name}`);
    given.set(name, value);
  }
  const block = sizeArgument(given.get("bs") ?? "512", "bs"), count = given.get("count"), from = given.get("if"), to = given.get("of");
  if (block < 1 || block > LARGEST_BLOCK) throw new CommandError(`Invalid bs specified. Must be between 1 and ${LARGEST_BLOCK}.`);
  const blocks = count === undefined ? undefined : sizeArgument(count, "count"), skip = sizeArgument(given.get("skip") ?? "0", "skip");
  if (from === undefined || to === undefined) throw new CommandError("Must specify both input and output files");
  return { from, to, block, count: blocks, skip };
}

/** Copies `[start, end)` to the target's beginning; what reads as zeros there already is left out. */
function* copyRange(source: Disk, start: number, end: number, target: Disk): Task {
  const dense = denseImages(source.chain), buffer = Buffer.allocUnsafe(CHUNK);
  for (let at = start; at < end;) {
    const { zero, length } = yield* entryAt(source.chain, at, end - at, dense), from = at, bytes = buffer.subarray(0, Math.min(length, CHUNK));
    at += zero ? length : bytes.length;
    if (zero) continue;
    yield wait(() => source.read(from, bytes));
    yield wait(() => target.write(from - start, bytes));
  }
}
