import { DiskError } from "../../errors.ts";
import type { Allocation, BackingReference, Extent } from "../../image.ts";
import { BlockImage } from "../../metadata/blockImage.ts";
import { BlockMap } from "../../metadata/blockMap.ts";
import { FlatImage } from "../../metadata/flatImage.ts";
import { SectorBitmaps } from "../../metadata/sectorBitmaps.ts";
import type { Storage } from "../../storage.ts";
import { truncate, write, type Task } from "../../task.ts";
import { SECTOR, TYPE } from "./footer.ts";
import { batLayout, UNALLOCATED, type VpcSparse } from "./header.ts";
import type { DataEnd } from "./space.ts";

const NO_RESIZE = "a VHD image cannot be resized: convert it to qcow2";

/** A fixed VHD: the disk as it is, and a footer that never moves. */
export class FixedVpcImage extends FlatImage {
  // oxlint-disable-next-line require-yield -- it only refuses
  *reserve(): Task {
    throw this.#cannotResize();
  }

  // oxlint-disable-next-line require-yield -- see reserve
  *resize(size: number): Task {
    if (size !== this.size) throw this.#cannotResize();
  }

  #cannotResize(): DiskError {
    return new DiskError("unsupported", NO_RESIZE, { path: this.storage.name, format: "vpc", operation: "resize" });
  }
}

/** A dynamic or differencing VHD; FORMAT.md tells the order of writes. */
export class SparseVpcImage extends BlockImage {
  protected readonly noResize = NO_RESIZE;
  override readonly backing: BackingReference | undefined;
  readonly #bitmaps: SectorBitmaps;
  /** Who only reads a dynamic image has no use for its bitmaps. */
  readonly #needsBitmaps: boolean;
  readonly #differencing: boolean;
  /** Behind the last block: there the footer belongs. */
  #end: number;
  #footerAt: number | undefined;

  /** Without `end` the image is read-only. */
  constructor(storage: Storage, readonly header: VpcSparse, end: DataEnd | undefined, tableCache: number) {
    const blocks = new BlockMap(storage, batLayout(header), end !== undefined, tableCache / 2);
    const bitmaps = new SectorBitmaps(storage, { ...header, sectorSize: SECTOR, lowestFirst: false }, tableCache / 2);
    super(storage, header.size, blocks, [bitmaps, blocks]);
    this.#bitmaps = bitmaps;
    this.#differencing = header.type === TYPE.differencing;
    this.#needsBitmaps = this.#differencing || end !== undefined;
    this.#end = end?.end ?? 0;
    this.#footerAt = end?.footer === true ? end.end : undefined;
    this.backing = header.parent;
  }

  override map(offset: number, length: number): Extent | undefined {
    const extent = super.map(offset, length);
    if (extent?.kind !== "data" || !this.#needsBitmaps) return extent;
    const skip = offset % this.blockSize;
    return this.#bitmaps.refine(extent, (offset - skip) / this.blockSize, skip, this.#differencing);
  }

  /** As QEMU: where a block has space, holes of the file are not told. */
  layout(offset: number, length: number): Extent | undefined {
    return this.map(offset, length);
  }

  override *load(offset: number): Task {
    const block = Math.floor(offset / this.blockSize), place = yield* this.blocks.place(block);
    // A block that stands behind the end of the file has no bitmap: the map says so.
    if (this.#needsBitmaps && place >= 0 && super.map(offset, 1)?.kind === "data") yield* this.#bitmaps.load(block, place - this.header.bitmapSize);
  }

  /** A block that has space, but not all of whose sectors are this image's yet, is written anew where it stands. */
  override *allocate(guest: number, length: number): Task<Allocation> {
    const place = yield* this.blocks.place(guest / this.blockSize);
    if (place < 0) return yield* super.allocate(guest, length);
    if (this.#bitmaps.full) yield* this.flush();
    return { guest, length: this.blockSize, storage: this.storage, offset: place, fresh: false };
  }

  protected override take(): { offset: number; count: number } {
    const at = this.#end, end = at + this.header.bitmapSize + this.blockSize;
    if (at / SECTOR >= UNALLOCATED) throw new DiskError("no-space", "the image file is as large as its BAT can tell", { path: this.storage.name, format: "vpc" });
    this.#end = end;
    return { offset: at + this.header.bitmapSize, count: 1 };
  }

  override *publish(allocation: Allocation): Task {
    const { guest, offset, fresh } = allocation, { bitmapSize } = this.header;
    if (!fresh) return yield* this.#bitmaps.fill(guest / this.blockSize, offset - bitmapSize);
    yield write(this.storage, offset - bitmapSize, new Uint8Array(bitmapSize).fill(0xff));
    yield* super.publish(allocation);
  }

  override abandon({ offset, fresh }: Allocation): void {
    if (fresh) this.#end = offset - this.header.bitmapSize;
  }

  /** Without space a block shows the parent's: only data hide it. */
  override *zero(guest: number, length: number, keep: boolean): Task<boolean> {
    return this.#differencing ? false : yield* super.zero(guest, length, keep);
  }

  /** The footer where the file now ends. Until it is there the copy at the beginning stands for it. */
  protected override *beforeMap(): Task {
    if (this.#footerAt === this.#end && this.storage.size === this.#end + SECTOR) return;
    yield write(this.storage, this.#end, this.header.footer);
    if (this.storage.size > this.#end + SECTOR) yield truncate(this.storage, this.#end + SECTOR);
    this.#footerAt = this.#end;
  }
}
