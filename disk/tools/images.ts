import { statSync } from "node:fs";
import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import type { Gate, NamedImage } from "../gate.ts";
import { fullName, isHttp, isPath, nodeGate, openPlain, resolveName } from "../gate.node.ts";
import type { Secrets } from "../names/access.ts";
import { isNbd } from "../names/nbd.ts";
import { isPlainName } from "../names/paths.node.ts";
import type { Format, SnapshotChoice } from "../formats/format.ts";
import { formatNamed } from "../formats/registry.ts";
import type { FormatInfo } from "../formats/info.ts";
import { MAX_DEPTH, openDisk, probed } from "../open.ts";
import { FileStorage } from "../storage/file.node.ts";
import { close, run, type Task } from "../task.ts";

export interface AccessOptions {
  /** `false`: neither take nor respect locks. */
  readonly lock: boolean;
  readonly writable?: boolean;
  /** The name is options of QEMU's: `driver=qcow2,file.filename=x`. */
  readonly imageOpts?: boolean | undefined;
  /** What the options of an encrypted image may name. */
  readonly secrets?: Secrets | undefined;
  /** It is to be copied: see `DiskOptions`. */
  readonly threads?: boolean;
  /** The disk of this internal snapshot. */
  readonly snapshot?: SnapshotChoice | undefined;
}

/** The file that an image is in, with what its name told of it; `guessed`: its format is the one that its magic tells. */
export interface ImageFile extends Omit<NamedImage, "format"> {
  readonly format: Format;
  readonly guessed: boolean;
  /** As QEMU calls it: the shortest name that leads to it. */
  readonly title: string;
  /** It was named as bytes without a format: the driver of those. */
  readonly protocol?: string | undefined;
}

/** Opens the file that an image is in. The caller closes its storage. */
export async function openImageFile(name: string, formatName: string | undefined, access: AccessOptions): Promise<ImageFile> {
  if (access.imageOpts === true || !isPlainName(name)) return await openNamed(name, formatName, access);
  const { lock, writable = false } = access, plain = resolveName(name, "");
  const named = formatName === undefined ? undefined : formatNamed(formatName);
  if (writable && isHttp(plain)) throw new DiskError("read-only", "files on the web cannot be changed: download it, or put an overlay on it", { path: name });
  const storage = writable ? FileStorage.open(plain, { mode: "write", lock }) : await openPlain(plain, lock);
  try {
    return { storage, format: named ?? await run(probed(storage)), guessed: named === undefined, title: plain };
  } catch (error) {
    await storage.close();
    throw DiskError.within(error, { operation: "open" });
  }
}

/** By the options that the name has or is. They are read by a module of their own, which few commands need. */
async function openNamed(name: string, formatName: string | undefined, { imageOpts, ...access }: AccessOptions): Promise<ImageFile> {
  const { openNode, optionsOfName } = await import("../names/nodes.node.ts"), { optionsFromPairs } = await import("../names/options.ts");
  try {
    const options = imageOpts === true ? optionsFromPairs(name, "file") : optionsOfName(name, formatName);
    const node = await openNode(options, { ...access, gate: nodeGate({ ...access, depth: 1 }) });
    return { ...node, format: formatNamed(node.driver), guessed: node.format === undefined };
  } catch (error) {
    throw DiskError.within(error, { path: name, operation: "open" });
  }
}

/** An image's disk, with all it stands on; `guessed`: its format was probed. The caller closes the disk. */
export interface OpenedDisk { readonly disk: Disk; readonly guessed: boolean }

export async function openImageDisk(name: string, formatName: string | undefined, access: AccessOptions): Promise<OpenedDisk> {
  // Only here, where data is read: who only looks at a header does not wait for it.
  const { useNodeCodecs } = await import("../codecs/host.node.ts");
  useNodeCodecs();
  const file = await openImageFile(name, formatName, access);
  return { disk: await run(diskOf(file, access)), guessed: file.guessed };
}

/** The disk of an opened file, with all it stands on. A failure closes the file. */
export function* diskOf({ storage, format, backing, secret }: ImageFile, { lock, writable = false, secrets, snapshot, threads }: AccessOptions): Task<Disk> {
  try {
    return yield* openDisk(storage, { format: format.name, readOnly: !writable, backing, secret, snapshot, threads, gate: nodeGate({ lock, secrets }), trustProbe: true });
  } catch (error) {
    yield close(storage);
    throw DiskError.within(error, { path: storage.name, operation: "open" });
  }
}

/** What is known of one image of a chain. */
export interface ImageDescription {
  readonly name: string;
  readonly format: string;
  readonly info: FormatInfo;
  /** Bytes that the file takes on its device. */
  readonly allocated: number | undefined;
  /** The backing file's name from here, as far as there is one. */
  readonly fullBackingName: string | undefined;
}

/** Describes an image, and with `chain` those it stands on too; each is open only while its header is read. */
export async function describe(name: string, formatName: string | undefined, access: AccessOptions, chain: boolean): Promise<ImageDescription[]> {
  const all: ImageDescription[] = [], seen = new Set<string>(), gate = nodeGate(access);
  for (let next: ImageFile | undefined = await openImageFile(name, formatName, access); next !== undefined;) {
    const file: ImageFile = next, { storage } = file;
    try {
      if (seen.has(storage.name)) throw new DiskError("corrupt", `Backing file '${storage.name}' creates an infinite loop.`);
      if (seen.size >= MAX_DEPTH) throw new DiskError("unsupported", `the backing chain has more than ${MAX_DEPTH} images; shorten it with qemu-img commit or rebase`, { path: name });
      seen.add(storage.name);
      const one = await describeOne(file, gate), { backing } = one.info;
      all.push(one);
      next = chain && backing !== undefined ? await fileOf(await gate.image(backing.file, storage, backing.format)) : undefined;
    } finally {
      await storage.close();
    }
  }
  return all;
}

async function fileOf(named: NamedImage): Promise<ImageFile> {
  const { storage, format } = named;
  try {
    return { ...named, title: named.title ?? storage.name, format: format === undefined ? await run(probed(storage)) : formatNamed(format), guessed: format === undefined };
  } catch (error) {
    await storage.close();
    throw error;
  }
}

async function describeOne({ storage, format, backing, title, protocol }: ImageFile, gate: Gate): Promise<ImageDescription> {
  try {
    if (typeof backing === "function") throw new DiskError("invalid-argument", `Block format '${format.name}' does not support the option 'backing' here: only the image itself is looked at`);
    const told = await run(format.info(storage, gate));
    // QEMU's nbd driver says nothing of what it reads, not even that it is clean.
    const info = format.name === "raw" && isNbd(storage.name) ? { ...told, dirty: null } : told;
    return { name: title, format: protocol ?? format.name, info, allocated: sum([storage.name, ...info.files ?? []].map(allocatedBytes)), fullBackingName: info.backing && fullBackingName(info.backing.file, storage.name) };
  } catch (error) {
    throw DiskError.within(error, { path: storage.name, format: format.name, operation: "open" });
  }
}

/** `undefined`: the name is relative, and to nothing. */
function fullBackingName(file: string, from: string): string | undefined {
  return isNbd(from) && isPath(file) && !file.startsWith("/") ? undefined : fullName(file, from);
}

function sum(counts: readonly (number | undefined)[]): number | undefined {
  return counts.reduce((all, count) => (all === undefined || count === undefined ? undefined : all + count), 0);
}

/** Bytes that a file takes on its device; unknown for the web and for systems that do not tell. */
export function allocatedBytes(name: string): number | undefined {
  if (isHttp(name)) return undefined;
  const { blocks } = (statSync(name, { throwIfNoEntry: false }) ?? {}) as { blocks?: number };
  return blocks === undefined ? undefined : blocks * 512;
}
