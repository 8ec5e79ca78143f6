import { statSync } from "node:fs";
import type { Disk } from "../disk.ts";
import { DiskError } from "../errors.ts";
import { fullName, isHttp, nodeGate, openForReading, resolveName } from "../gate.node.ts";
import type { Format, SnapshotChoice } from "../formats/format.ts";
import { formatNamed } from "../formats/registry.ts";
import type { FormatInfo } from "../formats/info.ts";
import { MAX_DEPTH, openDisk, probed } from "../open.ts";
import type { Storage } from "../storage.ts";
import { FileStorage } from "../storage/file.node.ts";
import { close, run, type Task } from "../task.ts";

export interface AccessOptions {
  /** `false`: neither take nor respect locks. */
  readonly lock: boolean;
  readonly writable?: boolean;
  /** The disk of this internal snapshot. */
  readonly snapshot?: SnapshotChoice | undefined;
}

/** A file or URL that an image is in, with its format: the one named, or the one its magic tells. */
export interface ImageFile { readonly storage: Storage; readonly format: Format; readonly guessed: boolean }

/** Opens the file that an image is in. The caller closes it. */
export async function openImageFile(name: string, formatName: string | undefined, { lock, writable = false }: AccessOptions): Promise<ImageFile> {
  const named = formatName === undefined ? undefined : formatNamed(formatName);
  if (writable && isHttp(name)) throw new DiskError("read-only", "files on the web cannot be changed: download it, or put an overlay on it", { path: name });
  const storage = writable ? FileStorage.open(name, { mode: "write", lock }) : await openForReading(name, lock);
  try {
    return { storage, format: named ?? await run(probed(storage)), guessed: named === undefined };
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** An image's disk, with all it stands on; `guessed`: its format was probed. The caller closes the disk. */
export interface OpenedDisk { readonly disk: Disk; readonly guessed: boolean }

export async function openImageDisk(name: string, formatName: string | undefined, access: AccessOptions): Promise<OpenedDisk> {
  const { storage, format, guessed } = await openImageFile(name, formatName, access);
  const disk = await run(withChain(storage, format.name, access));
  return { disk, guessed };
}

function* withChain(storage: Storage, format: string, { lock, writable = false, snapshot }: AccessOptions): Task<Disk> {
  try {
    return yield* openDisk(storage, { format, readOnly: !writable, snapshot, gate: nodeGate({ lock }), trustProbe: true });
  } catch (error) {
    yield close(storage);
    throw error;
  }
}

/** What is known of one image of a chain. */
export interface ImageDescription {
  readonly name: string;
  readonly format: Format;
  readonly info: FormatInfo;
  /** Bytes that the file takes on its device. */
  readonly allocated: number | undefined;
  /** The backing file's name from here, as far as there is one. */
  readonly fullBackingName: string | undefined;
}

/** Describes an image, and with `chain` those it stands on too; each is open only while its header is read. */
export async function describe(name: string, formatName: string | undefined, lock: boolean, chain: boolean): Promise<ImageDescription[]> {
  const all: ImageDescription[] = [], seen = new Set<string>();
  for (let next: { name: string; format: string | undefined } | undefined = { name, format: formatName }; next !== undefined;) {
    if (seen.has(next.name)) throw new DiskError("corrupt", `Backing file '${next.name}' creates an infinite loop.`);
    if (seen.size >= MAX_DEPTH) throw new DiskError("unsupported", `the backing chain has more than ${MAX_DEPTH} images; shorten it with qemu-img commit or rebase`, { path: name });
    seen.add(next.name);
    const one = await describeOne(next.name, next.format, lock), { backing } = one.info;
    all.push(one);
    next = chain && backing !== undefined ? { name: resolveName(backing.file, one.name), format: backing.format } : undefined;
  }
  return all;
}

async function describeOne(name: string, formatName: string | undefined, lock: boolean): Promise<ImageDescription> {
  const { storage, format } = await openImageFile(name, formatName, { lock });
  try {
    const info = await run(format.info(storage, nodeGate({ lock })));
    return { name, format, info, allocated: sum([name, ...info.files ?? []].map(allocatedBytes)), fullBackingName: info.backing && fullName(info.backing.file, name) };
  } catch (error) {
    throw DiskError.within(error, { path: name, format: format.name });
  } finally {
    await storage.close();
  }
}

function sum(counts: readonly (number | undefined)[]): number | undefined {
  return counts.reduce((all, count) => (all === undefined || count === undefined ? undefined : all + count), 0);
}

/** Bytes that a file takes on its device; unknown for the web and for systems that do not tell. */
export function allocatedBytes(name: string): number | undefined {
  if (isHttp(name)) return undefined;
  const { blocks } = statSync(name) as { blocks?: number };
  return blocks === undefined ? undefined : blocks * 512;
}
