import { Disk, type DiskOptions } from "./disk.ts";
import { DiskError } from "./errors.ts";
import type { Format, ImageOptions, SnapshotChoice } from "./formats/format.ts";
import { raw } from "./formats/raw/index.ts";
import { formatNamed, probe, probedAtEnd } from "./formats/registry.ts";
import { type BackingChoice, type Gate, GUESSED_GATE, type NamedImage, NO_GATE } from "./gate.ts";
import type { Image } from "./image.ts";
import type { Storage } from "./storage.ts";
import { call, close, read, run, type Task } from "./task.ts";

export interface OpenOptions extends DiskOptions {
  /** How files that the image names are opened. Default: not at all. */
  readonly gate?: Gate | undefined;
  /** The image's format; probed if not given, and then a file without a magic is raw. Give "raw" for any disk that a guest could write. */
  readonly format?: string | undefined;
  /** Default: as the storage. Backing files are always opened for reading only. */
  readonly readOnly?: boolean | undefined;
  /** The top image as it was in this internal snapshot, on its backing files as they are now. Read-only. */
  readonly snapshot?: SnapshotChoice | undefined;
  /**
   * `false`: only the top image; where it has no data of its own the disk reads as zeros. For `info` and `check`. A
   * function opens what the top image stands on in place of what it names.
   */
  readonly backing?: BackingChoice | undefined;
  /** Unlocks the top image if it is encrypted: the password. */
  readonly secret?: Uint8Array | undefined;
  /** Bound of resident metadata, for each image, in bytes. Default 8 MiB. */
  readonly tableCache?: number | undefined;
  /**
   * Follows the backing file even of an image whose format was only guessed. A guest that could write to that image
   * when it was raw could have made it look like one that names any file: only for images you trust.
   */
  readonly trustProbe?: boolean | undefined;
}

/** Longest backing chain. */
export const MAX_DEPTH = 64;
const HEAD = 4096;

/** `openDisk` as a call: at once when every storage answers at once, else a promise. */
export function open(storage: Storage, options: OpenOptions = {}): Disk | Promise<Disk> {
  return run(openDisk(storage, options));
}

/**
 * Opens the image in `storage` with its whole backing chain. The disk owns `storage` from then on and closes it;
 * if opening fails it stays the caller's, and every backing file that was opened meanwhile is closed.
 */
export function* openDisk(storage: Storage, options: OpenOptions = {}): Task<Disk> {
  const readOnly = options.readOnly ?? (storage.readOnly || options.snapshot !== undefined);
  if (!readOnly && storage.readOnly) throw new DiskError("read-only", "cannot be opened for writing", { path: storage.name });
  const guessed = options.format === undefined;
  const format = guessed ? yield* probed(storage) : formatNamed(options.format ?? "");
  const top = yield* opened(format, storage, { readOnly, gate: options.gate ?? NO_GATE, tableCache: options.tableCache, snapshot: options.snapshot, secret: options.secret });
  const chain: [Image, ...Image[]] = [top];
  try {
    yield* openBacking(chain, options);
  } catch (error) {
    for (const image of chain.slice(1)) yield* image.close();
    for (const file of top.files ?? []) yield close(file);
    throw error;
  }
  return new Disk(chain, options);
}

function* openBacking(chain: [Image, ...Image[]], options: OpenOptions): Task {
  const gate = options.gate ?? NO_GATE, names = new Set([chain[0].storage.name]);
  let above: Image = chain[0], choice = options.backing;
  for (let guessed = false;;) {
    const named: NamedImage | undefined = yield* backingOf(above, choice, gate, guessed && options.trustProbe !== true);
    if (named === undefined) return;
    const { storage, secret } = named, recorded: string | undefined = named.format, from = above.storage.name;
    let below: Image | undefined;
    try {
      if (chain.length >= MAX_DEPTH) throw new DiskError("unsupported", `the backing chain has more than ${MAX_DEPTH} images; shorten it with qemu-img commit or rebase`, { path: from });
      if (names.has(storage.name)) throw new DiskError("corrupt", `the backing chain goes in a circle: '${above.backing?.file ?? storage.name}' is in it already`, { path: from });
      names.add(storage.name);
      const format = recorded === undefined ? yield* probed(storage) : formatNamed(recorded);
      const trusted = recorded !== undefined || options.trustProbe === true;
      below = yield* opened(format, storage, { readOnly: true, gate: trusted ? gate : GUESSED_GATE, tableCache: options.tableCache, secret });
      above.checkBacking?.(below);
    } catch (error) {
      for (const file of [storage, ...below?.files ?? []]) yield close(file);
      throw DiskError.within(error, { path: storage.name });
    }
    guessed = recorded === undefined;
    choice = named.backing;
    chain.push(above = below);
  }
}

/** What `above` stands on: as was chosen for it, else as it names. */
function* backingOf({ backing, format, storage: from }: Image, choice: BackingChoice | undefined, gate: Gate, doubtful: boolean): Task<NamedImage | undefined> {
  if (choice === false) return undefined;
  if (choice !== undefined) return yield* call(() => choice(backing));
  if (backing === undefined) return undefined;
  if (doubtful) {
    throw new DiskError("unsupported", `it names the backing file '${backing.file}', but nothing records that this file is of format ${format}: a guest may have written that; record it with qemu-img rebase -u -F ${format} on the image above, if you trust it`, { path: from.name });
  }
  const image = gate.image?.bind(gate);
  if (image !== undefined) return yield* call(() => image(backing.file, from, backing.format));
  return { storage: yield* call(() => gate.open(backing.file, from)), format: backing.format };
}

/** The format by magic; a guess. */
export function* probed(storage: Storage): Task<Format> {
  const head = new Uint8Array(Math.min(HEAD, storage.size));
  yield read(storage, 0, head);
  const format = probe(head), atEnd = probedAtEnd(storage.name);
  if (format !== raw || atEnd === undefined) return format;
  const tail = new Uint8Array(Math.min(HEAD, storage.size));
  yield read(storage, storage.size - tail.length, tail);
  return atEnd.trailer.probe(tail) ? atEnd : raw;
}

type OneOptions = Omit<ImageOptions, "tableCache"> & Pick<OpenOptions, "tableCache">;

function* opened(format: Format, storage: Storage, options: OneOptions): Task<Image> {
  try {
    if (options.snapshot !== undefined && format.snapshots !== true) throw new DiskError("unsupported", `Block format '${format.name}' does not support temporarily loading internal snapshots`);
    if (options.snapshot !== undefined && !options.readOnly) throw new DiskError("read-only", "an internal snapshot can only be read");
    return yield* format.open(storage, { ...options, tableCache: options.tableCache ?? 8 * 2 ** 20 });
  } catch (error) {
    throw DiskError.within(error, { path: storage.name, format: format.name });
  }
}
