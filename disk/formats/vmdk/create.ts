import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { call, close, flush, truncate, write, type Task } from "../../task.ts";
import type { NewFiles } from "../creation.ts";
import { newContentId } from "./content.ts";
import { identify, NO_CONTENT } from "./descriptor.ts";
import { DEFLATE, ENTRY_SIZE, FLAG, HostedFields, MAGIC, SECTOR } from "./header.ts";

/** QEMU's geometry, which is VMware's: grains of 64 KiB, tables of 512, 20 sectors for a descriptor; extents of 2 GiB where they are split. */
const GRAIN = 128, PER_TABLE = 512, DESCRIPTOR_AT = 1, DESCRIPTOR_SECTORS = 20, SPLIT = 2 ** 31;
/** QEMU makes no larger ones either, once their directories fit. */
const MAX_ENTRIES = 2 ** 23;
const TABLE_SECTORS = (PER_TABLE * ENTRY_SIZE) / SECTOR;

export const SUBFORMATS = ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"] as const;
export const ADAPTERS = ["ide", "lsilogic", "buslogic", "legacyESX"] as const;

export interface VmdkCreateOptions {
  /** Guest size in bytes; rounded up to a multiple of 512. */
  readonly size: number;
  /** Default: monolithicSparse. All but it and streamOptimized need `files`. */
  readonly subformat?: (typeof SUBFORMATS)[number] | undefined;
  /** As it is to stand in the image; it must be a VMDK, and `files` must open it. */
  readonly backingFile?: string | undefined;
  readonly adapterType?: (typeof ADAPTERS)[number] | undefined;
  /** Default 4. */
  readonly hardwareVersion?: string | undefined;
  readonly toolsVersion?: string | undefined;
  /** Grains of zeros can be told from those that were never written. */
  readonly zeroedGrain?: boolean | undefined;
}

/** An extent to be made. `name`: its own file's; `undefined`: it is in the image's. */
interface NewExtent { readonly name: string | undefined; readonly size: number }

/**
 * Makes `file`, whatever it held, an empty VMDK, with its extents made by `files`; `files.name` stands in the descriptor.
 * What is believed - a header, a descriptor file - comes last.
 */
export function* createVmdk(file: Storage, options: VmdkCreateOptions, files: NewFiles): Task {
  checkVmdkOptions(options);
  const { subformat = "monolithicSparse", backingFile } = options, size = Math.ceil(options.size / SECTOR) * SECTOR, flat = subformat.endsWith("Flat");
  const extents = split(files.name, subformat, size), alone = extents.length === 1 && extents[0]?.name === undefined;
  const parentCid = backingFile === undefined ? NO_CONTENT : yield* contentIdOf(backingFile, file, files);
  const text = encodeText(descriptor({ ...options, size, subformat }, extents.map(({ name, size: bytes }) => `RW ${bytes / SECTOR} ${flat ? 'FLAT' : "SPARSE"} "${name ?? baseName(files.name)}"${flat ? " 0" : ""}`), parentCid));
  if (alone && text.length > DESCRIPTOR_SECTORS * SECTOR) throw refused("the names are too long: the descriptor does not fit");
  yield truncate(file, 0);
  if (alone) return yield* createSparse(file, size, options, text);
  for (const extent of extents) yield* createExtent(extent, flat, options, files);
  yield write(file, 0, text);
  yield flush(file, "the descriptor of a new VMDK");
}

/** Throws `invalid-argument` for what no image can have, in QEMU's words. */
export function checkVmdkOptions({ size, subformat = "monolithicSparse", backingFile, zeroedGrain = false, adapterType = "ide", hardwareVersion = "", toolsVersion = "" }: VmdkCreateOptions): void {
  const flat = subformat.endsWith("Flat");
  for (const [value, known] of [[subformat, SUBFORMATS], [adapterType, ADAPTERS]] as const) if (!known.some((one) => one === value)) throw refused(`invalid parameter value: ${value}`);
  if (flat && backingFile !== undefined) throw refused("Flat image can't have backing file");
  if (flat && zeroedGrain) throw refused("Flat image can't enable zeroed grain");
  for (const text of [backingFile ?? "", hardwareVersion, toolsVersion]) if (/["\r\n]/.test(text)) throw refused(`no descriptor can hold '${text}': it has a quote or a line's end`);
  if (!(size >= 0)) throw refused(`${size} is no size of a disk`);
  if (!Number.isSafeInteger(Math.ceil(size / SECTOR) * SECTOR)) throw refused(`a disk of ${size} bytes is larger than disk86 can address (8 PiB)`);
  if (!subformat.startsWith("two") && !flat && layout(size).tables > MAX_ENTRIES) throw refused(`a VMDK extent of ${size} bytes; disk86's bound is ${MAX_ENTRIES * PER_TABLE * GRAIN * SECTOR}`);
}

function refused(what: string): DiskError {
  return new DiskError("invalid-argument", what, { format: "vmdk", operation: "create" });
}

function baseName(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1);
}

/** QEMU's names: `disk-flat.vmdk`, `disk-f001.vmdk`, `disk-s001.vmdk`. */
function split(file: string, subformat: string, size: number): NewExtent[] {
  const base = baseName(file), dot = base.lastIndexOf("."), stem = dot < 0 ? base : base.slice(0, dot), end = dot < 0 ? "" : base.slice(dot);
  if (/["\r\n]/.test(base)) throw refused(`no descriptor can hold the name '${base}'`);
  if (subformat === "monolithicSparse" || subformat === "streamOptimized") return [{ name: undefined, size }];
  if (subformat === "monolithicFlat") return size === 0 ? [] : [{ name: `${stem}-flat${end}`, size }];
  const letter = subformat.endsWith("Flat") ? "f" : "s";
  return Array.from({ length: Math.ceil(size / SPLIT) }, (_, i) => ({ name: `${stem}-${letter}${String(i + 1).padStart(3, "0")}${end}`, size: Math.min(SPLIT, size - i * SPLIT) }));
}

function* contentIdOf(name: string, file: Storage, files: NewFiles): Task<number> {
  const storage = yield* call(() => files.open(name, file));
  try {
    const { descriptor } = yield* identify(storage);
    if (descriptor === undefined) throw refused(`the parent ${name} has no content ID`);
    return descriptor.cid;
  } catch (error) {
    throw DiskError.within(error, { path: storage.name });
  } finally {
    yield close(storage);
  }
}

function* createExtent({ name = "", size }: NewExtent, flat: boolean, options: VmdkCreateOptions, files: NewFiles): Task {
  const storage = yield* call(() => files.create(name));
  try {
    if (!flat) return yield* createSparse(storage, size, options, new Uint8Array(0));
    yield truncate(storage, size);
    yield flush(storage, "a flat extent before the descriptor that names it");
  } finally {
    yield close(storage);
  }
}

/** A hosted sparse extent in an empty file: header, descriptor, second directory and tables, first directory and tables. */
function* createSparse(file: Storage, size: number, options: VmdkCreateOptions, descriptorText: Uint8Array): Task {
  const { tables, directorySectors, redundant, directory, overhead } = layout(size);
  yield truncate(file, overhead * SECTOR);
  yield write(file, DESCRIPTOR_AT * SECTOR, descriptorText);
  for (const at of [redundant, directory]) {
    const bytes = new Uint8Array(directorySectors * SECTOR), view = new DataView(bytes.buffer);
    for (let i = 0; i < tables; i++) view.setUint32(i * ENTRY_SIZE, at + directorySectors + i * TABLE_SECTORS, true);
    yield write(file, at * SECTOR, bytes);
  }
  yield flush(file, "the tables before the header of a new sparse extent");
  yield write(file, 0, formatHeader(size, options));
  yield flush(file, "the new sparse extent");
}

/** In sectors, but for the count of grain tables. */
function layout(size: number) {
  const tables = Math.ceil(size / (GRAIN * SECTOR * PER_TABLE)), directorySectors = Math.ceil((tables * ENTRY_SIZE) / SECTOR), one = directorySectors + tables * TABLE_SECTORS;
  const redundant = DESCRIPTOR_AT + DESCRIPTOR_SECTORS, directory = redundant + one;
  return { tables, directorySectors, redundant, directory, overhead: Math.ceil((directory + one) / GRAIN) * GRAIN };
}

function formatHeader(size: number, { subformat, zeroedGrain = false }: VmdkCreateOptions): Uint8Array {
  const { redundant, directory, overhead } = layout(size), compressed = subformat === "streamOptimized";
  return HostedFields.format({
    magic: MAGIC.hosted, version: compressed ? 3 : zeroedGrain ? 2 : 1,
    flags: FLAG.newlines | FLAG.redundant | (zeroedGrain ? FLAG.zeroGrain : 0) | (compressed ? FLAG.compressed | FLAG.markers : 0),
    capacity: size / SECTOR, grainSize: GRAIN, descriptorOffset: DESCRIPTOR_AT, descriptorSize: DESCRIPTOR_SECTORS, perTable: PER_TABLE,
    redundantOffset: BigInt(redundant), directoryOffset: BigInt(directory), overhead, unclean: 0, newlines: encodeText("\n \r\n"),
    compression: compressed ? DEFLATE : 0, rest: new Uint8Array(433),
  });
}

/** Word for word QEMU's. */
function descriptor({ size, subformat, backingFile, adapterType = "ide", hardwareVersion = "4", toolsVersion = "2147483647" }: VmdkCreateOptions, extents: readonly string[], parentCid: number): string {
  const hex = (id: number): string => id.toString(16).padStart(8, "0"), heads = adapterType === "ide" ? 16 : 255, sectors = 63;
  return [
    "# Disk DescriptorFile", "version=1", `CID=${hex(newContentId())}`, `parentCID=${hex(parentCid)}`, `createType="${subformat}"`,
    backingFile === undefined ? "" : `parentFileNameHint="${backingFile}"`,
    "# Extent description", ...extents, "", "# The Disk Data Base", "#DDB", "",
    `ddb.virtualHWVersion = "${hardwareVersion}"`, `ddb.geometry.cylinders = "${Math.floor(size / (sectors * heads * SECTOR))}"`, `ddb.geometry.heads = "${heads}"`,
    `ddb.geometry.sectors = "${sectors}"`, `ddb.adapterType = "${adapterType}"`, `ddb.toolsVersion = "${toolsVersion}"`, "",
  ].join("\n");
}
