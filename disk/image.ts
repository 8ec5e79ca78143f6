import type { Pending, Storage } from "./storage.ts";
import type { Task } from "./task.ts";

/** Where a range of the guest disk lives. `length` (bytes) is how far the same answer holds. */
export type Extent = DataExtent | ZeroExtent | BackingExtent | PackedExtent;

/** The bytes stand as they are at `offset` of `storage`; `writable`: they may be overwritten in place. */
export interface DataExtent {
  readonly kind: "data"; readonly length: number;
  readonly storage: Storage; readonly offset: number; readonly writable: boolean;
  /** The storage may have holes there, of which `layout` does not know: a listing asks the storage. */
  readonly sparse?: true;
  /** In the file itself they stand encrypted; `storage` shows them plainly. */
  readonly encrypted?: true;
}

/** Reads as zeros. `offset`: the host space it owns nevertheless (preallocated), for `map` listings. */
export interface ZeroExtent { readonly kind: "zero"; readonly length: number; readonly offset?: number }

/** Not in this image: the backing file answers, or zeros where there is none. `offset`: as for zeros. */
export interface BackingExtent { readonly kind: "backing"; readonly length: number; readonly offset?: number }

/** A part of a compressed cluster: unpack `packedLength` bytes at `offset` to `clusterSize` bytes, and skip `skip`. */
export interface PackedExtent {
  readonly kind: "packed"; readonly length: number;
  readonly storage: Storage; readonly offset: number; readonly packedLength: number;
  readonly clusterSize: number; readonly skip: number;
  /** Fills `into` (`clusterSize` bytes) from `packed`, whose tail may be garbage. Synchronous. Throws `DiskError`. */
  unpack(packed: Uint8Array, into: Uint8Array): void;
  /** The same, perhaps on another thread, with the buffers in use until it is done. Absent: only `unpack`. */
  readonly unpackLater?: ((packed: Uint8Array, into: Uint8Array) => Pending) | undefined;
}

/** Host space reserved for the guest range `[guest, guest + length)`, not yet visible to `map`. */
export interface Allocation {
  readonly guest: number; readonly length: number;
  readonly storage: Storage; readonly offset: number;
  /** Newly taken; `false`: space that the range owned already. */
  readonly fresh: boolean;
  /** The space reads as zeros, and so does the range of an image that has no backing file: what is not written need not be copied. */
  readonly zeroed?: boolean;
}

/** How space is given before it is needed: in the tables only, reserved in the file too, or written with zeros. qemu-img's modes. */
export const SPACES = ["metadata", "falloc", "full"] as const;
export type Space = (typeof SPACES)[number];

/** How far something long is, in units of its own. */
export type Progress = (done: number, total: number) => void;

/** The backing file an image names: as written in the image, and the format it records, if any. */
export interface BackingReference { readonly file: string; readonly format: string | undefined }

/** One dirty bitmap that an image keeps: which granules of the guest disk were changed since it was made or cleared. */
export interface BitmapInfo {
  readonly name: string;
  /** Guest bytes for each bit. */
  readonly granularity: number;
  /** Changes of the guest are entered. */
  readonly enabled: boolean;
  /** A writer died, or did not know it: what it says is worth nothing, and it can only be removed. */
  readonly inconsistent: boolean;
}

/**
 * The persistent dirty bitmaps of an open image. Changes are made durable by the image's `close`, all at once. They run
 * while nobody else changes the image. Refusals are in QEMU's words.
 */
export interface Bitmaps {
  list(): readonly BitmapInfo[];
  /** A new one, all clean. `granularity` in bytes, a power of two from 512 to 2^31; 0: QEMU's choice for this image. */
  add(name: string, granularity: number, enabled?: boolean): void;
  remove(name: string): void;
  clear(name: string): void;
  enable(name: string, enabled: boolean): void;
  /** Marks dirty what is dirty in bitmap `source` of `from`: of this image or of another whose disk is as large. */
  merge(name: string, from: Bitmaps, source: string): Task;
  /** The first dirty range at or after `offset`, in bytes, as long as it goes on within a page of the bitmap. */
  nextDirty(name: string, offset: number): Task<{ readonly offset: number; readonly length: number } | undefined>;
  /** Of the guest disk. */
  readonly size: number;
}

/**
 * One open image of some format. It does no guest data I/O: it only says where data is (`map`) and keeps the
 * metadata. `map` is pure and synchronous; everything with several steps is a Task. The owner (a `Disk`) runs
 * the changing tasks of one image one at a time; `load` may run beside them.
 */
export interface Image {
  readonly format: string;
  /** The file with the metadata; `close` closes it and every other file of the image. */
  readonly storage: Storage;
  /** The further files that hold its data: extents, a data file. */
  readonly files?: readonly Storage[];
  readonly size: number;
  readonly readOnly: boolean;
  /** Bytes that one allocation covers at least; a multiple of 512, mostly a power of two. */
  readonly blockSize: number;
  /** What of a new block must be written at least, in bytes; absent: all of it. */
  readonly writeSize?: number;
  readonly backing: BackingReference | undefined;
  /** Which reads of data areas are under way; freed space is reused only after them. */
  readonly reads: ReadFence;

  /** Refuses, with a `DiskError`, an image that is not the backing file this one was made on. Absent: nothing is recorded that tells. */
  checkBacking?(below: Image): void;

  /**
   * Records `below`, as it is now, as what the image stands on: for an owner who has changed that and knows that the
   * image reads the same. Durable after `flush`. Absent: nothing is recorded that tells.
   */
  adopt?(below: Image): Task;

  /** Pure lookup in resident metadata; `undefined` when some of it has to be loaded first. `offset` < `size`. */
  map(offset: number, length: number): Extent | undefined;
  /**
   * As `map`, but tells holes of the file too: for listings and copies, since asking the file system costs a system
   * call. Absent: `map` knows all there is to know.
   */
  layout?(offset: number, length: number): Extent | undefined;
  /** Makes the next `map(offset)` answer. */
  load(offset: number): Task;

  /**
   * The guest is about to change what it reads from this range: every change by a `Disk` says so first, so that an
   * image can keep account of changes. Absent: this format does not.
   */
  changing?(guest: number, length: number): Pending;
  /** The persistent dirty bitmaps. Absent: this format has none. */
  bitmaps?(): Task<Bitmaps>;

  /**
   * Reserves space for a write of whole blocks: `guest` and `length` are multiples of `blockSize`. May reserve
   * less than asked, at least one block; and may begin before it or end behind it, for what has to be copied along.
   * Nothing is visible until `publish`; `abandon` gives the space back.
   */
  allocate(guest: number, length: number): Task<Allocation>;
  /** Points the guest range at the allocation. Called only after its data was written. A failure has changed nothing. */
  publish(allocation: Allocation): Task;
  /** Gives back an allocation whose data could not be written, or that could not be published. */
  abandon(allocation: Allocation): void;

  /** What `pack` takes at once, in bytes: whole blocks. Absent: one block. */
  readonly packSize?: number;
  /**
   * Compresses `packSize` bytes as the format stores it; `undefined`: it does not shrink, write it plainly.
   * It depends on nothing that changes and changes nothing: several may run at once, beside any task. Present exactly
   * when `storePacked` is; absent: the image cannot be written compressed.
   */
  pack?(block: Uint8Array): Uint8Array | undefined | Promise<Uint8Array | undefined>;
  /**
   * Stores what `pack` made at `guest`, a multiple of `packSize`: data first, then what points at it, and
   * what was there before is dropped. Durable after `flush`. A failure has changed nothing.
   */
  storePacked?(guest: number, packed: Uint8Array): Task;

  /** Makes whole blocks read as zeros without writing them; `keep`: keep their space. `false`: cannot, write zeros instead. */
  zero(guest: number, length: number, keep: boolean): Task<boolean>;
  /** As `zero`, whatever the image may come to stand on: blocks that are not there read as zeros today only. Absent, or `false`: cannot. */
  hide?(guest: number, length: number): Task<boolean>;
  /** Drops whole blocks that nobody needs; they read as zeros or as before. */
  discard(guest: number, length: number): Task;
  /** Makes room in the tables to allocate and zero up to `size`, which the disk is about to grow to. Absent: there is room always. */
  reserve?(size: number): Task;
  /**
   * Changes the guest disk's size, in bytes. Shrinking drops what is beyond. What is allocated behind the old end
   * shows when the disk grows: the owner clears it first.
   */
  resize(size: number): Task;

  /**
   * Gives the guest range `[from, to)`, up to the disk's end, space of its own where it has none; it reads as before.
   * Refuses as `unsupported` a way the format does not have. Absent: there is none.
   */
  preallocate?(from: number, to: number, space: Space, progress: Progress): Task;
  /**
   * Drops all that the image has of its own: it then reads as what it stands on. For an owner who has just made sure
   * that this is the same, durably; no read is under way. Durable after `flush`. Absent: the format cannot.
   */
  empty?(): Task;
  /**
   * Names another backing file, or none; durable after `flush`, and after a crash it is the one or the other. The owner
   * sees to it that the guest reads the same, and closes the image. Refuses a name for which there is no room.
   */
  setBacking?(to: BackingReference | undefined): Task;

  /** Makes everything published durable, in an order that survives a crash at any step. */
  flush(): Task;
  /** `flush`, the marks of a clean shutdown, and the files closed. */
  close(): Task;
}

/** Counts asynchronous reads under way, so that an image can tell when all reads that began before some moment have ended. */
export class ReadFence {
  #next = 0;
  readonly #active = new Set<number>();

  /** A read begins; give the ticket to `end`. */
  begin(): number {
    this.#active.add(this.#next);
    return this.#next++;
  }

  end(ticket: number): void {
    this.#active.delete(ticket);
  }

  /** A moment to ask `passed` about. */
  now(): number {
    return this.#next;
  }

  /** Whether every read that began before `moment` has ended. */
  passed(moment: number): boolean {
    const oldest = this.#active.values().next();
    return oldest.done === true || oldest.value >= moment;
  }
}
