import { DiskError } from "../../errors.ts";
import { read, type Task } from "../../task.ts";
import { type BitmapEntry, bitmapDirectory, readBitmapDirectory } from "./bitmap-directory.ts";
import { BITMAP_TABLE_ENTRY, bitmapPage } from "./bitmap-table.ts";
import { MARK, type CheckState } from "./check-state.ts";

const MIB = 2 ** 20;

/** Whether the bitmaps extension counts: without its autoclear bit it is nobody's any more. */
export function hasBitmaps({ header }: CheckState): boolean {
  return bitmapDirectory(header) !== undefined;
}

/** Counts the persistent bitmaps: directory, tables, data. What cannot be understood is an error, so that nothing of it is given back. */
export function* checkBitmaps(state: CheckState): Task {
  const place = bitmapDirectory(state.header);
  if (place === undefined) return;
  const refuse = (what: string, offset = place.offset): void => {
    state.report.corruption(offset, () => `ERROR ${what}`);
    state.report.add("error", offset, false, () => "ERROR the bitmaps cannot be counted, so nothing is given back");
    state.incomplete = true;
  };
  if (!state.reference(place.offset, place.size, 1, MARK.metadata)) return refuse("bitmap directory behind the end of the file");
  state.charge(place.size);
  let entries: BitmapEntry[];
  try {
    entries = yield* readBitmapDirectory(state.file, state.header);
  } catch (error) {
    if (!(error instanceof DiskError) || error.kind !== "corrupt") throw error;
    return refuse(error.what, error.context.offset);
  }
  for (const { tableOffset, tableSize } of entries) {
    if (!(yield* checkTable(state, tableOffset, tableSize))) return refuse("a bitmap's table is broken", tableOffset);
  }
}

/** Answers whether all entries could be counted. docs/interop/qcow2.rst, "Bitmap table". */
function* checkTable(state: CheckState, offset: number, size: number): Task<boolean> {
  const { file, clusterSize } = state, length = size * BITMAP_TABLE_ENTRY;
  if (!state.reference(offset, length, 1, MARK.metadata)) return false;
  for (let part = 0; part < length; part += MIB) {
    const bytes = new Uint8Array(Math.min(MIB, length - part)), view = new DataView(bytes.buffer);
    state.charge(bytes.length);
    yield read(file, offset + part, bytes);
    for (let at = 0; at < bytes.length; at += BITMAP_TABLE_ENTRY) {
      const page = bitmapPage(view, at, clusterSize);
      if (page === undefined) return false;
      if (typeof page === "number") state.reference(page, clusterSize, 1, MARK.metadata);
    }
  }
  return true;
}
