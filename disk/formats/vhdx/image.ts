import { DiskError } from "../../errors.ts";
import type { Allocation, BackingReference, Extent } from "../../image.ts";
import { BlockImage } from "../../metadata/blockImage.ts";
import { BlockMap } from "../../metadata/blockMap.ts";
import { SectorBitmaps } from "../../metadata/sectorBitmaps.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import { batLayout, offsetIn, STATE, type VhdxLayout } from "./header.ts";
import { logged, type Log } from "./log.ts";
import { corrupt } from "./structures.ts";

/** How far a BAT entry can point. */
const FARTHEST = 2 ** 53;

/** What an image has that is open for writing: its log, and where new blocks begin. */
export interface Writing { readonly log: Log; readonly end: number }

/** A dynamic or fixed VHDX; FORMAT.md tells the order of writes. */
export class VhdxImage extends BlockImage {
  protected readonly noResize = "a VHDX image cannot be resized: convert it to qcow2";
  readonly #log: Log | undefined;
  #end: number;

  /** Without `writing` the image is read-only. */
  constructor(storage: Storage, layout: VhdxLayout, tableCache: number, writing?: Writing) {
    const blocks = new BlockMap(storage, batLayout(layout), writing !== undefined, tableCache);
    super(storage, layout.size, blocks, writing === undefined ? [blocks] : [logged(blocks, writing.log)]);
    this.#log = writing?.log;
    this.#end = writing?.end ?? 0;
  }

  protected override take(count: number): { offset: number; count: number } {
    const offset = this.#end, end = offset + count * this.blockSize;
    if (end >= FARTHEST) throw new DiskError("no-space", "the image file is as large as it can be", { path: this.storage.name, format: "vhdx" });
    this.#end = end;
    return { offset, count };
  }

  override abandon({ offset }: Allocation): void {
    this.#end = offset;
  }

  protected override *closing(): Task {
    if (this.#log !== undefined) yield* this.#log.end();
  }
}

/** A differencing VHDX, for reading: where a block is this image's only in part, a sector bitmap block tells which sectors are. */
export class DifferencingVhdxImage extends VhdxImage {
  override readonly backing: BackingReference | undefined;
  readonly #bitmaps: SectorBitmaps;
  readonly #chunk: number;
  readonly #bitmapSize: number;

  constructor(storage: Storage, layout: VhdxLayout, tableCache: number) {
    super(storage, layout, tableCache / 2);
    const { blockSize, sectorSize, chunk } = layout;
    this.#bitmapSize = blockSize / sectorSize / 8;
    this.#chunk = chunk;
    this.#bitmaps = new SectorBitmaps(storage, { blockSize, sectorSize, bitmapSize: this.#bitmapSize, lowestFirst: true }, tableCache / 2);
    this.backing = layout.parent;
  }

  override map(offset: number, length: number): Extent | undefined {
    const skip = offset % this.blockSize, block = (offset - skip) / this.blockSize, entry = this.blocks.entry(block);
    const extent = super.map(offset, Math.min(length, this.blockSize - skip));
    return extent?.kind === "data" && entry !== undefined && isPartial(entry) ? this.#bitmaps.refine(extent, block, skip, true) : extent;
  }

  override *load(offset: number): Task {
    yield* super.load(offset);
    const block = Math.floor(offset / this.blockSize), entry = this.blocks.entry(block);
    if (entry === undefined || !isPartial(entry)) return;
    const chunk = Math.floor(block / this.#chunk), slot = chunk * (this.#chunk + 1) + this.#chunk;
    yield* this.blocks.loadSlot(slot);
    const bitmap = this.blocks.entry(block, slot);
    // Another load may have taken the slice's place in the cache.
    if (bitmap === undefined) return;
    const state = bitmap.view.getUint32(bitmap.at, true) & 7, at = offsetIn(bitmap.view, bitmap.at) + (block % this.#chunk) * this.#bitmapSize;
    if (state !== STATE.fullyPresent || at >= this.storage.size) throw corrupt(this.storage, `guest block ${block} is there in part, and its sector bitmap is not`);
    yield* this.#bitmaps.load(block, at);
  }
}

function isPartial({ view, at }: { readonly view: DataView; readonly at: number }): boolean {
  return (view.getUint32(at, true) & 7) === STATE.partiallyPresent;
}
