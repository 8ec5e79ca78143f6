import { DiskError } from "../../errors.ts";
import { ReadFence, type Allocation, type BackingReference, type Extent, type Image } from "../../image.ts";
import { Guard } from "../../metadata/guard.ts";
import type { Pending, Storage } from "../../storage.ts";
import { discard, zero, type Task } from "../../task.ts";
import type { ContentId } from "./content.ts";
import { ZERO } from "./entries.ts";
import type { VmdkExtent } from "./extents.ts";
import type { Grains } from "./grains.ts";
import { SECTOR, unsupported } from "./header.ts";
import { appendGrains, packGrain, Packer } from "./packer.ts";
import { closeFiles } from "./parts.ts";

export interface VmdkParts {
  readonly extents: readonly VmdkExtent[];
  /** The files of the extents, but for the image's own. */
  readonly files: readonly Storage[];
  /** A COWD has none. */
  readonly content: ContentId | undefined;
  readonly backing: BackingReference | undefined;
  readonly writable: boolean;
}

/** An open VMDK: extents one behind the other. FORMAT.md tells the order of writes. */
export class VmdkImage implements Image {
  readonly format = "vmdk";
  readonly size: number;
  readonly blockSize: number;
  readonly files: readonly Storage[];
  readonly backing: BackingReference | undefined;
  readonly reads = new ReadFence();
  /** As QEMU: where grains are not compressed they are written plainly, and where there are no grains it is refused. */
  readonly pack?: NonNullable<Image["pack"]>;
  readonly storePacked?: NonNullable<Image["storePacked"]>;
  readonly #extents: readonly VmdkExtent[];
  readonly #guard = new Guard();
  #last = 0;

  constructor(readonly storage: Storage, readonly parts: VmdkParts) {
    const { extents, files, backing } = parts, last = extents.at(-1)?.part;
    this.#extents = extents;
    this.files = files;
    this.backing = backing;
    this.size = last === undefined ? 0 : last.start + last.length;
    this.blockSize = extents.find(({ grains }) => grains !== undefined)?.grains?.header.grainSize ?? SECTOR;
    if (extents.every(({ grains }) => grains === undefined)) return;
    const compressed = extents.some(({ grains }) => grains?.header.compressed === true);
    this.pack = (block) => (compressed ? packGrain(block) : undefined);
    this.storePacked = (guest, packed) => this.#change(this.#storePacked(guest, packed));
  }

  get readOnly(): boolean {
    return !this.parts.writable;
  }

  /** "Virtual Disk Format 5.0", "parentCID": a parent that was changed no longer is what this image stands on. */
  checkBacking(below: Image): void {
    const { content } = this.parts, refuse = (what: string): never => { throw new DiskError("corrupt", what, { path: this.storage.name, format: "vmdk" }); };
    if (!(below instanceof VmdkImage)) refuse(`its parent is of format ${below.format}; the parent of a VMDK must be one, too`);
    else if (content !== undefined && below.parts.content?.value !== content.descriptor.parentCid) {
      refuse(`its parent ${below.storage.name} was changed after this image was made on it: the content ID is ${id(below.parts.content?.value)}, and should be ${id(content.descriptor.parentCid)}`);
    }
  }

  *adopt(below: Image): Task {
    const id = below instanceof VmdkImage ? below.parts.content?.value : undefined;
    if (id !== undefined && this.parts.content !== undefined) yield* this.parts.content.adopt(id);
  }

  map(offset: number, length: number): Extent | undefined {
    const extent = this.#at(offset), { start, length: size } = extent.part;
    return extent.map(offset - start, Math.min(length, start + size - offset));
  }

  /** What a listing needs to know more is in the extents themselves. */
  layout(offset: number, length: number): Extent | undefined {
    return this.map(offset, length);
  }

  changing(): Pending {
    return this.parts.content?.renew();
  }

  *load(offset: number): Task {
    const extent = this.#at(offset);
    yield* extent.load(offset - extent.part.start);
  }

  allocate(guest: number, length: number): Task<Allocation> {
    return this.#change(this.#allocate(guest, length));
  }

  publish(allocation: Allocation): Task {
    return this.#change(this.#publish(allocation));
  }

  /** Changes run one at a time: it is the last one that was taken. */
  abandon({ guest, length, storage, offset }: Allocation): void {
    if (!(storage instanceof Packer)) this.#grainsAt(guest).grains.give(offset, length);
  }

  zero(guest: number, length: number, keep: boolean): Task<boolean> {
    return this.#change(this.#zero(guest, length, keep));
  }

  discard(guest: number, length: number): Task {
    return this.#change(this.#discard(guest, length));
  }

  /** Refused before the disk clears what is behind its end. */
  // oxlint-disable-next-line require-yield -- it only refuses
  *reserve(): Task {
    throw this.#noResize();
  }

  // oxlint-disable-next-line require-yield -- see reserve
  *resize(size: number): Task {
    if (size !== this.size) throw this.#noResize();
  }

  flush(): Task {
    return this.#change(this.#flush());
  }

  *close(): Task {
    try {
      if (!this.readOnly && this.#guard.sound) yield* this.flush();
    } finally {
      yield* closeFiles([...this.files, this.storage]);
    }
  }

  *#change<T>(task: Task<T>): Task<T> {
    if (this.readOnly) throw new DiskError("read-only", "the image is open read-only", { path: this.storage.name, format: "vmdk" });
    return yield* this.#guard.change(task);
  }

  *#allocate(guest: number, length: number): Task<Allocation> {
    const { grains, offset } = this.#grainsAt(guest);
    if (grains.full) yield* this.#flush();
    if (grains.header.compressed) {
      return { guest, length: Math.min(length, grains.room(offset)), storage: new Packer(grains, guest), offset: 0, fresh: true };
    }
    const count = yield* grains.vacant(offset, length);
    return { guest, length: count * this.blockSize, storage: grains.file, offset: grains.take(count * this.blockSize, this.blockSize), fresh: true };
  }

  *#publish({ guest, length, storage, offset: host }: Allocation): Task {
    const { grains, offset } = this.#grainsAt(guest);
    const sectors = storage instanceof Packer ? storage.sectors : Array.from({ length: length / this.blockSize }, (_, i) => (host + i * this.blockSize) / SECTOR);
    yield* grains.set(offset, sectors);
  }

  *#storePacked(guest: number, packed: Uint8Array): Task {
    const { grains, offset } = this.#grainsAt(guest);
    if (grains.full) yield* this.#flush();
    yield* grains.set(offset, yield* appendGrains(grains, guest, [packed]));
  }

  /** Grains in the file stay, and their space goes where the storage can; others are marked where a parent would show. */
  *#zero(guest: number, length: number, keep: boolean): Task<boolean> {
    if (this.backing !== undefined && !this.#extents.every(({ grains }) => grains?.header.zeroGrain !== false)) return false;
    yield* this.#each(guest, length, function* (this: VmdkImage, at: number, extent: Extent): Task {
      if (extent.kind === "data") yield zero(extent.storage, extent.offset, extent.length, keep);
      else if (extent.kind === "packed" || (extent.kind === "backing" && this.backing !== undefined)) yield* this.#empty(at, extent.length);
    });
    return true;
  }

  *#discard(guest: number, length: number): Task {
    yield* this.#each(guest, length, function* (this: VmdkImage, at: number, extent: Extent): Task {
      if (extent.kind === "data") yield discard(extent.storage, extent.offset, extent.length);
      else if (extent.kind === "packed" && (this.backing === undefined || this.#grainsAt(at).grains.header.zeroGrain)) yield* this.#empty(at, extent.length);
    });
  }

  *#each(guest: number, length: number, change: (this: VmdkImage, at: number, extent: Extent) => Task): Task {
    const end = Math.min(guest + length, this.size);
    while (guest < end) {
      yield* this.load(guest);
      const extent = this.map(guest, end - guest);
      // Another load may have taken the table's place in the cache.
      if (extent === undefined) continue;
      yield* change.call(this, guest, extent);
      guest += extent.length;
    }
  }

  /** Entries without a grain: of zeros where the header allows it, else of nothing. */
  *#empty(guest: number, length: number): Task {
    const { grains, offset } = this.#grainsAt(guest);
    if (grains.full) yield* this.#flush();
    yield* grains.set(offset, Array.from({ length: Math.ceil(length / this.blockSize) }, () => (grains.header.zeroGrain ? ZERO : 0)));
  }

  *#flush(): Task {
    for (const extent of this.#extents) yield* extent.flush();
  }

  /** The extent that has a guest offset below the disk's size. */
  #at(offset: number): VmdkExtent {
    let low = 0, high = this.#extents.length - 1, extent = this.#extents[this.#last];
    if (extent === undefined || offset < extent.part.start || offset >= extent.part.start + extent.part.length) {
      while (low < high) {
        const middle = (low + high + 1) >>> 1;
        if ((this.#extents[middle]?.part.start ?? 0) <= offset) low = middle;
        else high = middle - 1;
      }
      this.#last = low;
      extent = this.#extents[low];
    }
    if (extent === undefined) throw new Error("an offset behind the disk's end");
    return extent;
  }

  /** The sparse extent there, and the offset in it. */
  #grainsAt(guest: number): { readonly grains: Grains; readonly offset: number } {
    const { grains, part } = this.#at(guest);
    if (grains === undefined) throw new Error("a flat extent always has its space");
    return { grains, offset: guest - part.start };
  }

  #noResize(): DiskError {
    return unsupported(this.storage, "a VMDK image cannot be resized: convert it to another format, or use VMware's vmware-vdiskmanager -x", "resize");
  }
}

/** As descriptors have it. */
function id(value: number | undefined): string {
  return value === undefined ? "none" : value.toString(16).padStart(8, "0");
}
