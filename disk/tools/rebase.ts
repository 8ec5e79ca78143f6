import { Buffer } from "node:buffer";
import { existsSync, realpathSync } from "node:fs";
import { lookUp } from "../chain.ts";
import type { Disk } from "../disk.ts";
import { formatNamed } from "../formats/registry.ts";
import { fullName, isHttp } from "../gate.node.ts";
import type { BackingReference, Image } from "../image.ts";
import { all } from "../storage.ts";
import { run, type Task, wait } from "../task.ts";
import { checkCache, checkSourceCache, onlyFile, SHARED } from "./arguments.ts";
import { type AccessOptions, diskOf, type ImageFile, openImageDisk, openImageFile } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { type Meter, meterFor } from "./progress.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, UsageError, type Verb } from "./verb.ts";

const CHUNK = 2 << 20;

export const rebase: Verb = {
  usage: "[-f FMT] [-u] -b BACKING -F FMT [-t MODE] [-T MODE] [-p] [-q] [-U] FILE",
  about: `Puts an overlay on another image. Where that reads other than the one it stood on, the difference is written into the
overlay first: the guest sees what it saw before. -b "" makes it stand alone. A relative BACKING is relative to the
overlay. With -u only the name is changed: what the guest sees may change, and the old backing file need not be there.`,
  examples: [
    ["disk86 rebase -b base.qcow2 -F qcow2 top.qcow2", "on base.qcow2, past what lay between"],
    ["disk86 rebase -b '' top.qcow2", "on nothing: all it needs is copied into it"],
    ["disk86 rebase -u -b moved/base.qcow2 -F qcow2 top.qcow2", "the backing file has moved"],
  ],
  options: [
    SHARED.format, { name: "backing", short: "b", value: "FILE", help: "the image it shall stand on; empty: none" },
    { name: "backing-format", short: "F", value: "FMT", help: "the format of that one" },
    { name: "unsafe", short: "u", help: "change only the name" },
    SHARED.cache, SHARED.sourceCache, SHARED.progress, SHARED.quiet, SHARED.forceShare, SHARED.imageOpts, SHARED.object,
  ],
  run: runRebase,
};

async function runRebase(call: Call): Promise<number> {
  const file = onlyFile(call), unsafe = call.has("unsafe"), backing = call.value("backing") ?? "", backingFormat = call.value("backing-format");
  if (!unsafe && !call.has("backing")) throw new UsageError("Must specify backing file (-b) or use unsafe mode (-u)");
  checkCache(call);
  checkSourceCache(call);
  const access = { ...(await sourceAccess(call)), writable: true }, format = sourceFormat(call), reading = { lock: access.lock, secrets: access.secrets };
  if (backingFormat !== undefined) checkFormat(backingFormat);
  const meter = meterFor(call, "rebasing", 1);
  const overlay = unsafe ? await run(alone(await openImageFile(file, format, access), access)) : (await openImageDisk(file, format, access)).disk;
  const opened: Disk[] = [overlay];
  try {
    const to = backing === "" ? undefined : { file: backing, format: backingFormat };
    if (overlay.chain[0].setBacking === undefined) throw new CommandError(`Could not change the backing file to '${backing}': a ${overlay.chain[0].format} image has none that could be changed`);
    if (!unsafe && to !== undefined) opened.push((await openImageDisk(fullName(backing, overlay.name), backingFormat, reading)).disk);
    if (to !== undefined && backingFormat === undefined) throw new CommandError(`Could not change the backing file to '${backing}': backing format must be specified`);
    await runInterruptible(rebaseTask(overlay, opened[1], unsafe, to, meter));
  } finally {
    meter.end();
    await all(opened.map((disk) => disk.close()));
  }
  return 0;
}

function checkFormat(name: string): void {
  try {
    formatNamed(name);
  } catch (error) {
    throw new CommandError(`Invalid format name: '${name}'`, 1, { cause: error });
  }
}

/** The overlay without what it stands on, which need not be there. */
function alone(file: ImageFile, access: AccessOptions): Task<Disk> {
  return diskOf({ ...file, backing: false }, access);
}

function* rebaseTask(overlay: Disk, below: Disk | undefined, unsafe: boolean, to: BackingReference | undefined, meter: Meter): Task {
  if (!unsafe) yield* keepContents(overlay, below, meter);
  yield* overlay.setBacking(to);
  meter.update(1, 1);
}

/** Writes into `overlay` what a guest reads through it from below, wherever `below` (absent: zeros) reads otherwise. */
export function* keepContents(overlay: Disk, below: Disk | undefined, meter: Meter): Task {
  const [top] = overlay.chain, unit = top.blockSize, chunk = Math.max(CHUNK, unit), { size } = overlay;
  const shared = sharedFrom(overlay, below), old = Buffer.allocUnsafe(chunk), next = Buffer.alloc(chunk);
  meter.update(0, size);
  for (let offset = 0; offset < size;) {
    const { kind, length } = yield* lookUp(top, offset, size - offset), alike = kind === "backing" ? yield* alikeFor(overlay, below, shared, offset, length) : length;
    // Blocks are written whole: one of which only a part is alike is compared.
    const skip = alike === length ? length : alike - (alike % unit), count = skip > 0 ? skip : Math.min(length, chunk - (offset % chunk));
    if (skip === 0) yield* keep(overlay, below, offset, old.subarray(0, count), next.subarray(0, count));
    offset += count;
    meter.update(offset, size);
  }
}

/** From which of `overlay`'s images on the chain is `below`'s own; `Infinity`: it is another. */
function sharedFrom({ chain }: Disk, below: Disk | undefined): number {
  const index = chain.length - (below?.chain.length ?? 0);
  const same = below !== undefined && index > 0 && below.chain.every((image, i) => isSame(image, chain[index + i]));
  return same ? index : Infinity;
}

function isSame(one: Image, other: Image | undefined): boolean {
  const path = (name: string): string => (isHttp(name) || !existsSync(name) ? name : realpathSync(name));
  return other !== undefined && one.format === other.format && one.size === other.size && path(one.storage.name) === path(other.storage.name);
}

/** For how many bytes from `offset` both surely read the same: from the same image, or zeros. */
function* alikeFor(overlay: Disk, below: Disk | undefined, shared: number, offset: number, length: number): Task<number> {
  const now = yield* overlay.status(offset, length);
  if (now.depth >= shared && now.depth < overlay.chain.length) return now.extent.length;
  const then = below === undefined ? undefined : yield* below.status(offset, length), zeros = [now, then].every((one) => one === undefined || one.extent.kind === "zero" || one.extent.kind === "backing");
  return zeros ? Math.min(now.extent.length, then?.extent.length ?? length) : 0;
}

/** Writes the blocks of one piece that differ. */
function* keep(overlay: Disk, below: Disk | undefined, offset: number, old: Buffer, next: Buffer): Task {
  const unit = overlay.chain[0].blockSize, zeros = Buffer.alloc(unit);
  yield wait(() => overlay.read(offset, old));
  if (below !== undefined) yield wait(() => below.read(offset, next));
  const differs = (at: number): boolean => at < old.length && !old.subarray(at, at + unit).equals(next.subarray(at, at + unit));
  const isZero = (at: number): boolean => zeros.subarray(0, Math.min(unit, old.length - at)).equals(old.subarray(at, at + unit));
  for (let at = 0; at < old.length;) {
    const start = at, zero = isZero(at);
    if (!differs(at)) {
      at += unit;
      continue;
    }
    while (differs(at) && isZero(at) === zero) at += unit;
    const run = old.subarray(start, at);
    if (zero) yield* overlay.hide(offset + start, run.length);
    else yield wait(() => overlay.write(offset + start, run));
  }
}
