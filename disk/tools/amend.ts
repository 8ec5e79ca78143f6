import type { Amendment } from "../formats/amendment.ts";
import type { CreateValues } from "../formats/creation.ts";
import type { Format } from "../formats/format.ts";
import { formatNamed } from "../formats/registry.ts";
import { call as later, type Task, wait } from "../task.ts";
import { CACHES, onlyFile, SHARED } from "./arguments.ts";
import { type AccessOptions, diskOf, openImageFile } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { OptionValues, optionHelp, splitOptions } from "./options.ts";
import { type Meter, meterFor } from "./progress.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, UsageError, type Verb } from "./verb.ts";

const SECTOR = 512;
/** More than a page may take: who runs a command can stop it. */
const LIMITS = { memory: 2 * 2 ** 30, reads: 2 ** 40 };

export const amend: Verb = {
  usage: "-o OPTIONS [-f FMT] [-p] [-q] FILE",
  about: `Changes options of an image that is there: its version, the width of its refcounts, and others. Whenever it is
interrupted, the image is whole, as it was or as it is to be. A smaller size loses what stands behind it.`,
  examples: [
    ["disk86 amend -o compat=1.1 disk.qcow2", "to version 3"],
    ["disk86 amend -o refcount_bits=64 disk.qcow2", "wider refcounts"],
    ["disk86 amend -f qcow2 -o help", "what can be changed"],
  ],
  options: [
    { name: "options", short: "o", value: "NAME=VALUE,...", help: "what to change" }, SHARED.format, SHARED.progress, SHARED.quiet,
    { name: "cache", short: "t", value: "MODE", help: "qemu-img's cache mode: accepted, makes no difference" },
    { name: "force", help: "allow unsafe changes of keys: accepted, makes no difference" }, SHARED.imageOpts, SHARED.object,
  ],
  run: runAmend,
};

async function runAmend(call: Call): Promise<number> {
  const given = call.values("options").flatMap(splitOptions), cache = call.value("cache") ?? "writeback";
  if (given.length === 0) throw new UsageError("Must specify options (-o)");
  const wantsHelp = given.some(([name]) => name === "help" || name === "?"), formatName = sourceFormat(call);
  if (wantsHelp && formatName !== undefined) return help(call, formatNamed(formatName));
  const file = onlyFile(call), access = { ...await sourceAccess(call), writable: !wantsHelp };
  if (!CACHES.has(cache)) throw new CommandError(`Invalid cache option: ${cache}`);
  const { format, storage } = await openImageFile(file, formatName, access);
  await storage.close();
  if (wantsHelp) return help(call, format);
  await amendFile(call, file, format, given, access);
  return 0;
}

function amendmentOf({ amendment, name }: Format): Amendment {
  if (amendment === undefined) throw new CommandError(`Format driver '${name}' does not support option amendment`);
  return amendment;
}

function help(call: Call, format: Format): number {
  call.output.out(optionHelp(format.name, amendmentOf(format).options, `Amend options for '${format.name}':`));
  return 0;
}

async function amendFile(call: Call, file: string, format: Format, given: readonly (readonly [string, string])[], access: AccessOptions): Promise<void> {
  const amendment = amendmentOf(format), values = new OptionValues(amendment.options);
  for (const [name, value] of given) {
    const known = amendment.options.some((option) => option.name === name), onCreation = format.creation?.options.some((option) => option.name === name) === true;
    if (!known && onCreation) throw new CommandError(`Invalid parameter '${name}'\nThis option is only supported for image creation`);
    values.set(name, value);
  }
  const { size, ...others } = values.given(), meter = meterFor(call, "amending", 1), first = amendment.downgrades(others);
  try {
    meter.update(0, 1);
    if (size !== undefined && first) await resize(file, format, Number(size), access);
    if (Object.keys(others).length > 0) await apply(file, format, amendment, others, access, meter);
    if (size !== undefined && !first) await resize(file, format, Number(size), access);
    meter.update(1, 1);
  } finally {
    meter.end();
  }
}

async function apply(file: string, format: Format, amendment: Amendment, values: CreateValues, access: AccessOptions, meter: Meter): Promise<void> {
  const { storage } = await openImageFile(file, format.name, access);
  try {
    await runInterruptible(amendment.apply(storage, values, { limits: LIMITS, onProgress: (done, total) => { meter.update(done, Math.max(total, done + 1)); } }));
  } finally {
    await storage.close();
  }
}

async function resize(file: string, format: Format, size: number, access: AccessOptions): Promise<void> {
  if (size % SECTOR !== 0) throw new CommandError(`The new size must be a multiple of ${SECTOR}`);
  const opened = await openImageFile(file, format.name, access);
  await runInterruptible((function* task(): Task {
    const disk = yield* diskOf(opened, access);
    try {
      yield wait(() => disk.truncate(size));
    } finally {
      yield* later(() => disk.close());
    }
  })());
}
