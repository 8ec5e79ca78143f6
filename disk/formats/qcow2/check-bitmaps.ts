import { Struct, u16, u32, u64, u8 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import { read, type Task } from "../../task.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { AUTOCLEAR } from "./features.ts";
import { ENTRY_SIZE } from "./l2-entry.ts";

/** docs/interop/qcow2.rst, "Bitmap directory"; extra data and the name follow. */
const DirectoryEntry = new Struct({ tableOffset: u64, tableSize: u32, flags: u32, type: u8, granularityBits: u8, nameLength: u16, extraLength: u32 });
/** QEMU's bounds (block/qcow2-bitmap.c). */
const BOUNDS = { bitmaps: 65535, directory: 1024 * 65535, name: 1023, granularity: { min: 9, max: 31 }, bytes: 0x2000_0000 } as const;
const IN_USE = 1, KNOWN_FLAGS = 3, DIRTY_TRACKING = 1;
const RESERVED_HIGH = 0xff00_0000, RESERVED_LOW = 0x1fe, ALL_ONES = 1, LOW_OFFSET = 0xffff_fe00, HIGH = 2 ** 32;
const MIB = 2 ** 20;

/** Whether the bitmaps extension counts: without its autoclear bit it is nobody's any more. */
export function hasBitmaps({ header }: CheckState): boolean {
  return header.bitmapDirectory !== undefined && (header.autoclear & AUTOCLEAR.bitmaps) !== 0n;
}

/** Counts the persistent bitmaps: directory, tables, data. What cannot be understood is an error, so that nothing of it is given back. */
export function* checkBitmaps(state: CheckState): Task {
  const { header, file, report, clusterSize } = state, place = header.bitmapDirectory;
  if (place === undefined || !hasBitmaps(state)) return;
  const refuse = (what: string, offset: number): void => {
    report.corruption(offset, () => `ERROR ${what}`);
    report.add("error", offset, false, () => "ERROR the bitmaps cannot be counted, so nothing is given back");
    state.incomplete = true;
  };
  const { offset, size } = place;
  if (offset % clusterSize !== 0 || offset === 0 || size === 0 || size > BOUNDS.directory || header.bitmapCount > BOUNDS.bitmaps) return refuse("bitmap directory at an impossible place or of an impossible size", offset);
  if (!state.reference(offset, size, 1, MARK.metadata)) return refuse("bitmap directory behind the end of the file", offset);
  state.charge(size);
  const directory = new Uint8Array(size);
  yield read(file, offset, directory);
  let at = 0, count = 0;
  for (; at + DirectoryEntry.size <= size; count++) {
    const entry = parse(directory, at), next = at + Math.ceil((DirectoryEntry.size + (entry?.nameLength ?? 0)) / 8) * 8;
    if (entry === undefined || next > size || count >= header.bitmapCount || !isPossible(state, entry)) break;
    if (!(yield* checkTable(state, entry.tableOffset, entry.tableSize))) break;
    at = next;
  }
  if (at !== size || count !== header.bitmapCount) refuse("Broken bitmap directory", offset + at);
}

type Entry = ReturnType<typeof DirectoryEntry.parse>;

function parse(directory: Uint8Array, at: number): Entry | undefined {
  try {
    return DirectoryEntry.parse(directory, at);
  } catch (error) {
    if (error instanceof DiskError) return undefined;
    throw error;
  }
}

function isPossible({ clusterSize, header }: CheckState, entry: Entry): boolean {
  const { min, max } = BOUNDS.granularity, bytes = entry.tableSize * clusterSize;
  const large = entry.tableSize > 0 && bytes <= BOUNDS.bytes && ((entry.flags & IN_USE) !== 0 || header.size <= bytes * 8 * 2 ** entry.granularityBits);
  return large && entry.tableOffset !== 0 && entry.tableOffset % clusterSize === 0 && entry.granularityBits >= min && entry.granularityBits <= max
    && (entry.flags & ~KNOWN_FLAGS) === 0 && entry.nameLength <= BOUNDS.name && entry.type === DIRTY_TRACKING && entry.extraLength === 0;
}

/** Answers whether all entries could be counted. docs/interop/qcow2.rst, "Bitmap table". */
function* checkTable(state: CheckState, offset: number, size: number): Task<boolean> {
  const { file, clusterSize } = state, length = size * ENTRY_SIZE;
  if (!state.reference(offset, length, 1, MARK.metadata)) return false;
  for (let part = 0; part < length; part += MIB) {
    const bytes = new Uint8Array(Math.min(MIB, length - part)), view = new DataView(bytes.buffer);
    state.charge(bytes.length);
    yield read(file, offset + part, bytes);
    for (let at = 0; at < bytes.length; at += ENTRY_SIZE) {
      const high = view.getUint32(at), low = view.getUint32(at + 4);
      if (high === 0 && (low & ~ALL_ONES) === 0) continue;
      const data = high * HIGH + ((low & LOW_OFFSET) >>> 0);
      if ((high & RESERVED_HIGH) !== 0 || (low & (RESERVED_LOW | ALL_ONES)) !== 0 || data % clusterSize !== 0) return false;
      state.reference(data, clusterSize, 1, MARK.metadata);
    }
  }
  return true;
}
