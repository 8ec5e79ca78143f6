import { setU64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import { flush, read, write, type Task } from "../../task.ts";
import { PAGE } from "./check-counts.ts";
import type { Refcounting } from "./check-refcounts.ts";
import { MARK, type CheckState } from "./check-state.ts";
import { HeaderFields, HeaderFields3, LIMITS, V2_LENGTH } from "./header.ts";
import type { SnapshotTable } from "./snapshots.ts";
import { formatSnapshots } from "./snapshots.ts";

const ENTRY_SIZE = 8;

/** New clusters, in a row behind the end of the file: a snapshot table if one is due, the refcount table, the blocks. */
interface Plan {
  readonly snapshots: Uint8Array | undefined;
  readonly start: number;
  readonly table: number;
  readonly tableClusters: number;
  readonly firstBlock: number;
  /** Which parts of the file have a block; in the order of the blocks. */
  readonly blocks: readonly number[];
  readonly end: number;
}

/** How refcounts are to be written: log2 of their bits, and where they stood so far. */
export interface Rebuilt extends Pick<Refcounting, "width" | "perBlock" | "own"> { readonly order: number }

/**
 * Writes the whole refcount structure anew from the references, behind the end of the file, where nothing is; only
 * then does one write to the header switch over to it. What the old structure took is free from then on. With
 * `table` the snapshot table is written anew as well.
 */
export function* rebuild(state: CheckState, refcounts: Rebuilt, table: SnapshotTable | undefined): Task {
  const { header, file, clusterSize } = state;
  const snapshots = Array.from({ length: Math.ceil((table?.length ?? 0) / clusterSize) }, (_, i) => header.snapshotsOffset / clusterSize + i);
  release(state, refcounts, [...refcounts.own, ...snapshots]);
  const plan = makePlan(state, refcounts, table === undefined ? undefined : formatSnapshots(table.snapshots, header.size));
  const entries = new Uint8Array(plan.tableClusters * clusterSize), view = new DataView(entries.buffer), block = new Uint8Array(clusterSize);
  for (const [i, index] of plan.blocks.entries()) {
    const at = (plan.firstBlock + i) * clusterSize;
    setU64(view, index * ENTRY_SIZE, at);
    fillBlock(state, refcounts, plan, block, index);
    yield write(file, at, block);
  }
  yield write(file, plan.table * clusterSize, entries);
  if (plan.snapshots !== undefined) yield write(file, plan.start * clusterSize, plan.snapshots);
  state.changed = true;
  yield flush(file, "rebuilt refcounts before the header that points at them");
  yield* switchOver(state, plan, refcounts.order);
}

/** What else references these clusters has them for itself now. */
function release({ references, marks, differing }: CheckState, { width }: Rebuilt, clusters: readonly number[]): void {
  for (const cluster of clusters) references.add(cluster, -1);
  for (const cluster of clusters) {
    const count = Math.min(references.get(cluster), width.max);
    differing.set(cluster, count);
    if (count === 1) marks.set(cluster, MARK.one);
  }
}

function makePlan(state: CheckState, refcounts: Rebuilt, snapshots: Uint8Array | undefined): Plan {
  const { clusterSize, clusters, references, file } = state, { perBlock } = refcounts;
  const start = references.get(clusters) > 0 ? clusters + 1 : clusters, table = start + Math.ceil((snapshots?.length ?? 0) / clusterSize);
  const used = usedBlocks(state, perBlock), last = used.at(-1) ?? 0;
  let end = table + 1;
  for (;;) {
    const blocks = [...used];
    for (let index = Math.floor(start / perBlock); index <= Math.floor((end - 1) / perBlock); index++) if (index > last || used.length === 0) blocks.push(index);
    const tableClusters = Math.ceil((((blocks.at(-1) ?? 0) + 1) * ENTRY_SIZE) / clusterSize);
    if (tableClusters * clusterSize > LIMITS.refcountTableBytes) throw new DiskError("no-space", "the refcounts cannot be rebuilt: their table would exceed QEMU's bound of 8 MiB; convert the image to larger clusters", { path: file.name, format: "qcow2", operation: "repair" });
    const firstBlock = table + tableClusters, needed = firstBlock + blocks.length;
    if (needed <= end) return { snapshots, start, table, tableClusters, firstBlock, blocks, end };
    end = needed;
  }
}

/** Which parts of the file, by the blocks that describe them, are referenced at all. */
function usedBlocks({ references, clusters }: CheckState, perBlock: number): number[] {
  const used: number[] = [];
  for (let index = 0; index < references.pages; index++) {
    const page = references.page(index);
    if (page === undefined) continue;
    for (let i = 0; i < PAGE && index * PAGE + i <= clusters; i++) {
      const block = Math.floor((index * PAGE + i) / perBlock);
      if (page[i] !== 0 && used.at(-1) !== block) used.push(block);
    }
  }
  return used;
}

function fillBlock({ references, clusters }: CheckState, { perBlock, width }: Rebuilt, plan: Plan, block: Uint8Array, index: number): void {
  const view = new DataView(block.buffer), first = index * perBlock;
  block.fill(0);
  for (let i = 0; i < perBlock && first + i < plan.end; i++) {
    const cluster = first + i, count = cluster >= plan.start ? 1 : cluster <= clusters ? references.get(cluster) : 0;
    if (count !== 0) width.set(view, i, Math.min(count, width.max));
  }
}

/** All fields stand in the header's first sector: one write. In version 2 the width of refcounts is not one of them. */
function* switchOver({ file, clusterSize, header }: CheckState, plan: Plan, order: number): Task {
  const first = HeaderFields.offsetOf("refcountTableOffset"), end = header.version < 3 ? V2_LENGTH : V2_LENGTH + HeaderFields3.offsetOf("refcountOrder") + 4;
  const bytes = new Uint8Array(end - first), view = new DataView(bytes.buffer);
  yield read(file, first, bytes);
  setU64(view, 0, plan.table * clusterSize);
  view.setUint32(8, plan.tableClusters);
  if (plan.snapshots !== undefined) setU64(view, 16, plan.start * clusterSize);
  if (header.version >= 3) view.setUint32(bytes.length - 4, order);
  yield write(file, first, bytes);
  yield flush(file, "header points at the rebuilt refcounts before anything relies on them");
}
