import { bytes, Struct, u32, u64 } from "../../bytes/struct.ts";
import { DiskError, type DiskErrorKind } from "../../errors.ts";
import { BACKING, type BlockMapLayout } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";

export const SECTOR = 512;
export const MAGIC = { old: "WithoutFreeSpace", extended: "WithouFreSpacExt" } as const;
export const VERSION = 2;
/** "Yon_t": somebody has the image open for writing, or did not close it. 0: closed, as QEMU says it. */
export const IN_USE = 0x746f6e59, CLOSED = 0;
export const ENTRY_SIZE = 4;
/** QEMU's bounds (block/parallels.c), and ours of a cluster that can be written, which is copied in memory. */
export const LIMITS = { tracks: Math.floor((2 ** 31 - 1) / 513), entries: Math.floor((2 ** 31 - 1) / 4), writable: 64 * 2 ** 20 } as const;

/** docs/interop/parallels.txt, "Header". The BAT follows it at once. */
export const HeaderFields = new Struct({
  magic: bytes(16), version: u32, heads: u32, cylinders: u32, tracks: u32, entries: u32, sectors: u64,
  inUse: u32, dataOffset: u32, flags: u32, extension: u64,
}, "little");

/** A checked header: the BAT and the data do not overlap, and the BAT has room for the disk. Sizes in bytes. */
export interface ParallelsHeader {
  readonly size: number;
  readonly clusterSize: number;
  /** Entries of the BAT. */
  readonly entries: number;
  /** What an entry counts in: clusters, or sectors in the old form. */
  readonly unit: number;
  readonly dataOffset: number;
  readonly unclean: boolean;
  /** It has the Format Extension, with dirty bitmaps. */
  readonly extended: boolean;
}

export function magicOf(head: Uint8Array): "old" | "extended" | undefined {
  const magic = String.fromCharCode(...head.subarray(0, 16));
  return magic === MAGIC.old ? "old" : magic === MAGIC.extended ? "extended" : undefined;
}

export function* readHeader(file: Storage): Task<ParallelsHeader> {
  const fail = (kind: DiskErrorKind, what: string, field: Parameters<typeof HeaderFields.offsetOf>[0]): never => {
    throw new DiskError(kind, what, { path: file.name, offset: HeaderFields.offsetOf(field), format: "parallels" });
  };
  const head = new Uint8Array(HeaderFields.size);
  yield read(file, 0, head);
  const form = magicOf(head), view = new DataView(head.buffer);
  if (form === undefined) return fail("invalid-format", "not a Parallels image: the magic is missing", "magic");
  // The old form only uses the lower half.
  if (form === "old") view.setUint32(HeaderFields.offsetOf("sectors") + 4, 0);
  const { version, tracks, entries, sectors, inUse, dataOffset: sectorsBefore, extension } = HeaderFields.parse(head);
  if (version !== VERSION) fail("unsupported", `Parallels version ${version}; version ${VERSION} is known`, "version");
  if (tracks === 0) fail("corrupt", "clusters of no sectors", "tracks");
  if (tracks > LIMITS.tracks) fail("unsupported", `clusters of ${tracks} sectors; QEMU's bound is ${LIMITS.tracks}`, "tracks");
  if (entries > LIMITS.entries) fail("unsupported", `a BAT of ${entries} entries; QEMU's bound is ${LIMITS.entries}`, "entries");
  const clusterSize = tracks * SECTOR, size = sectors * SECTOR, batEnd = HeaderFields.size + entries * ENTRY_SIZE;
  if (size > entries * clusterSize) fail("corrupt", `the BAT has ${entries} entries, too few for a disk of ${sectors} sectors`, "entries");
  if (batEnd > file.size) fail("corrupt", "the file is truncated: it ends before its BAT does", "entries");
  const dataOffset = sectorsBefore === 0 && form === "old" ? Math.ceil(batEnd / SECTOR) * SECTOR : sectorsBefore * SECTOR;
  if (dataOffset < batEnd) fail("corrupt", `the data begin at ${dataOffset}, within the BAT`, "dataOffset");
  if (form === "extended" && dataOffset % clusterSize !== 0) fail("corrupt", `the data begin at ${dataOffset}, which is no cluster`, "dataOffset");
  return { size, clusterSize, entries, unit: form === "old" ? SECTOR : clusterSize, dataOffset, unclean: inUse === IN_USE, extended: extension !== 0 };
}

/** The BAT follows the header. Its slices begin with the file, so that what is written back is whole sectors. */
export function batLayout({ clusterSize, entries, unit, dataOffset }: ParallelsHeader): BlockMapLayout {
  return {
    format: "parallels", noun: "cluster", blockSize: clusterSize, entries, entrySize: ENTRY_SIZE, slicesAt: 0, firstEntry: HeaderFields.size, dataOffset,
    decode: (view, at) => view.getUint32(at, true) * unit || BACKING,
    encode: (view, at, place) => { view.setUint32(at, place / unit, true); },
  };
}

/** Other programs then know that the image is being written; or, after a crash, that it was. */
export function* markInUse(file: Storage): Task {
  yield* writeMark(file, IN_USE);
  yield flush(file, "the mark of use before the first write");
}

export function* markClosed(file: Storage): Task {
  yield* writeMark(file, CLOSED);
  yield flush(file, "the mark of a clean close");
}

function* writeMark(file: Storage, mark: number): Task {
  const word = new Uint8Array(4);
  new DataView(word.buffer).setUint32(0, mark, true);
  yield write(file, HeaderFields.offsetOf("inUse"), word);
}

export function corrupt(file: Storage, what: string, offset?: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "parallels" });
}
