import { Struct, u64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import { read, write, type Task } from "../../task.ts";
import { checkBitmaps } from "./check-bitmaps.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { EXTENSION } from "./extensions.ts";
import { LIMITS } from "./header.ts";
import { ENTRY_SIZE } from "./l2-entry.ts";
import { isComplete, readSnapshots, type SnapshotTable } from "./snapshots.ts";

const MIB = 2 ** 20, HIGH = 2 ** 32;
/** L1 and L2 entries: bits 56 to 61 (and 62 in L1), 1 to 8 (and 0 in L1) are reserved. */
const L1_RESERVED_HIGH = 0x7f00_0000, L1_RESERVED_LOW = 0x1ff, HIGH_OFFSET = 0x00ff_ffff, LOW_OFFSET = 0xffff_fe00;
/** How many misaligned L2 tables are looked into; they would make a small file cost much. */
const MAX_ODD_TABLES = 1024;
const NO_SNAPSHOTS: SnapshotTable = { snapshots: [], length: 0, truncated: false };
const EncryptionHeader = new Struct({ offset: u64, length: u64 });

/** Counts all metadata but what L2 tables and the refcount table say. Answers the snapshot table. */
export function* walkMetadata(state: CheckState): Task<SnapshotTable> {
  const { header } = state;
  const table = yield* walkSnapshotTable(state);
  state.reference(0, state.clusterSize, 1, MARK.metadata);
  yield* walkL1(state, header.l1Offset, header.l1Size, 1, true);
  yield* walkSnapshots(state, table);
  state.reference(header.snapshotsOffset, table.length, 1, MARK.metadata);
  const encryption = header.extensions.find(({ type }) => type === EXTENSION.encryption)?.data;
  if (encryption !== undefined && encryption.length >= EncryptionHeader.size) {
    const { offset, length } = EncryptionHeader.parse(encryption);
    state.reference(offset, length, 1, MARK.metadata);
  }
  yield* checkBitmaps(state);
  return table;
}

/** A snapshot table that cannot be read is an error: nothing of the image may be given back then. */
function* walkSnapshotTable(state: CheckState): Task<SnapshotTable> {
  const { header, report, file } = state;
  const unreadable = (why: string): SnapshotTable => {
    report.add("error", header.snapshotsOffset, false, () => `ERROR failed to read the snapshot table: ${why}`);
    state.incomplete = true;
    return NO_SNAPSHOTS;
  };
  if (header.snapshotCount === 0) return NO_SNAPSHOTS;
  if (header.snapshotCount > LIMITS.snapshots) return unreadable(`it has ${header.snapshotCount} entries, at most ${LIMITS.snapshots} are possible`);
  if (header.snapshotsOffset % state.clusterSize !== 0) return unreadable("its offset is not aligned to a cluster");
  try {
    const table = yield* readSnapshots(file, header, state.mending);
    for (const [index, snapshot] of table.snapshots.entries()) {
      if (header.version >= 3 && !isComplete(snapshot)) report.mendable(header.snapshotsOffset, state.mending, () => `snapshot table entry ${index} is incomplete`);
    }
    return table;
  } catch (error) {
    if (!(error instanceof DiskError) || error.kind !== "corrupt") throw error;
    return unreadable(error.what);
  }
}

/** Snapshots that share an L1 table are one look at it, however many they are. */
function* walkSnapshots(state: CheckState, { snapshots }: SnapshotTable): Task {
  const { report } = state;
  if (state.externalData && snapshots.length > 0) report.corruption(state.header.snapshotsOffset, () => `ERROR ${snapshots.length} snapshots in image with data file`);
  const l1s = new Map<string, { offset: number; size: number; times: number }>();
  for (const { id, name, l1Offset: offset, l1Size: size } of snapshots) {
    const wrong = (what: string): void => { report.corruption(state.header.snapshotsOffset, () => `ERROR snapshot ${id} (${name}) ${what}; snapshot table entry corrupted`); };
    if (offset % state.clusterSize !== 0) wrong(`l1_offset=0x${offset.toString(16)}: L1 table is not cluster aligned`);
    else if (size * ENTRY_SIZE > LIMITS.l1Bytes) wrong(`l1_size=0x${size.toString(16)}: L1 table is too large`);
    else {
      const seen = l1s.get(`${offset}:${size}`);
      if (seen === undefined) l1s.set(`${offset}:${size}`, { offset, size, times: 1 });
      else seen.times++;
    }
  }
  for (const { offset, size, times } of l1s.values()) yield* walkL1(state, offset, size, times, false);
}

function* walkL1(state: CheckState, offset: number, size: number, times: number, active: boolean): Task {
  const whole = size * ENTRY_SIZE, length = Math.max(0, Math.min(whole, Math.floor((state.file.size - offset) / ENTRY_SIZE) * ENTRY_SIZE));
  if (!state.reference(offset, whole, times, MARK.metadata)) {
    // QEMU would give back the table, and with it what it holds. A wrong number in the header must not cost the disk.
    state.reference(offset, length, times, MARK.metadata);
    state.report.add("error", offset, false, () => `ERROR the L1 table at 0x${offset.toString(16)} does not fit the file, so nothing is repaired`);
    state.incomplete = true;
  }
  for (let at = 0; at < length; at += MIB) {
    const bytes = new Uint8Array(Math.min(MIB, length - at));
    state.charge(bytes.length);
    yield read(state.file, offset + at, bytes);
    if (!walkL1Part(state, bytes, offset + at, times, active)) continue;
    yield write(state.file, offset + at, bytes);
    state.changed = true;
  }
}

/** Answers whether entries were mended. */
function walkL1Part(state: CheckState, bytes: Uint8Array, offset: number, times: number, active: boolean): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), suspects: number[] = [];
  let good = 0;
  for (let at = 0; at < bytes.length; at += ENTRY_SIZE) {
    const high = view.getUint32(at), low = view.getUint32(at + 4);
    if (high === 0 && low === 0) continue;
    const table = (high & HIGH_OFFSET) * HIGH + ((low & LOW_OFFSET) >>> 0);
    if ((high & L1_RESERVED_HIGH) !== 0 || (low & L1_RESERVED_LOW) !== 0 || table === 0) suspects.push(at);
    else if (table % state.clusterSize === 0 && table < state.file.size) good++;
    if (table !== 0) walkTable(state, table, offset + at, times, active);
  }
  // With more bad entries than good ones it is hardly a table: somebody's data must not be mended.
  const mended = state.mending && suspects.length <= good;
  for (const at of suspects) {
    const high = view.getUint32(at), low = view.getUint32(at + 4), empty = (high & HIGH_OFFSET) === 0 && (low & LOW_OFFSET) === 0;
    // Where an entry names no table, QEMU takes the header for it; but its disk reads as if there were none, and so does ours.
    const what = (): string => (empty ? `L1 entry without a table: ${entryText(high, low)}` : `found L1 entry with reserved bits set: ${entryText(high, low)}`);
    state.report.mendable(offset + at, mended, what, mended ? 1 : times);
    if (!mended) continue;
    view.setUint32(at, empty ? 0 : (high & ~L1_RESERVED_HIGH) >>> 0);
    view.setUint32(at + 4, empty ? 0 : (low & LOW_OFFSET) >>> 0);
  }
  return mended && suspects.length > 0;
}

function walkTable(state: CheckState, table: number, entry: number, times: number, active: boolean): void {
  const inside = state.reference(table, state.clusterSize, times), cluster = Math.floor(table / state.clusterSize);
  if (table % state.clusterSize === 0) {
    if (!inside) return;
    // For the progress: each table is read once for its references, the active ones again for their flags.
    if (state.tables.get(cluster) === 0) state.total += state.clusterSize;
    if (active && state.activeTables.get(cluster) === 0) state.total += state.clusterSize;
    state.tables.add(cluster, times);
    if (active) state.activeTables.add(cluster, times);
    return;
  }
  state.report.corruption(entry, () => `ERROR l2_offset=${table.toString(16)}: Table is not cluster aligned; L1 entry corrupted`, times);
  const odd = state.oddTables.get(table) ?? { times: 0, active: 0 };
  if (!inside || (odd.times === 0 && state.oddTables.size >= MAX_ODD_TABLES)) return;
  state.oddTables.set(table, { times: odd.times + times, active: odd.active + (active ? times : 0) });
}

/** An entry as QEMU prints it. */
export function entryText(high: number, low: number): string {
  return high === 0 ? low.toString(16) : high.toString(16) + low.toString(16).padStart(8, "0");
}
