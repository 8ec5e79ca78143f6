import { loadChain, lookUp, resolve, status, type Status } from "./chain.ts";
import { DiskError } from "./errors.ts";
import type { BackingReference, Extent, Image, PackedExtent, Space } from "./image.ts";
import { noProgress } from "./metadata/space.ts";
import { UnpackedClusters } from "./metadata/unpacked.ts";
import { ChangeOrder } from "./order.ts";
import { packBlocks, storeInOrder } from "./packing.ts";
import { all, failedAfter, type Pending, type Storage } from "./storage.ts";
import { call, read, run, TaskQueue, wait, write, type Task } from "./task.ts";

export interface DiskOptions {
  /** Bound of the cache of unpacked clusters, in bytes. Default 16 MiB. */
  readonly unpackedCache?: number;
  /** Whole compressed clusters are unpacked on several threads where the host has them, and answered later: for copies, not for guests. */
  readonly threads?: boolean | undefined;
}

const MIB = 2 ** 20;
const ZEROS = new Uint8Array(MIB);

/**
 * A chain of images (top first) as one storage: the guest's disk. All guest data I/O of all formats happens here.
 *
 * Reads may overtake writes; a read sees every write that completed before it began. Overlapping changes complete
 * in the order they were issued. `flush` makes every completed change durable. With synchronous storages below,
 * no call ever answers with a promise.
 */
export class Disk implements Storage {
  readonly #top: Image;
  readonly #tasks = new TaskQueue();
  /** Packed blocks are stored one after another, each a task of its own. */
  readonly #packed = new TaskQueue();
  readonly #order = new ChangeOrder();
  readonly #reads = new Set<Promise<void>>();
  readonly #unpacked: UnpackedClusters;
  readonly #unpackLater: boolean;
  #closed = false;

  constructor(readonly chain: readonly [Image, ...Image[]], options: DiskOptions = {}) {
    this.#top = chain[0];
    this.#unpackLater = options.threads === true;
    this.#unpacked = new UnpackedClusters(options.unpackedCache ?? 16 * MIB);
  }

  get name(): string { return this.#top.storage.name; }
  get size(): number { return this.#top.size; }
  get readOnly(): boolean { return this.#top.readOnly; }

  read(offset: number, into: Uint8Array): Pending {
    this.#open("read");
    const pending = this.#read(offset, into);
    if (!pending) return;
    const tracked = pending.finally(() => { this.#reads.delete(tracked); });
    this.#reads.add(tracked);
    return tracked;
  }

  #read(offset: number, into: Uint8Array): Pending {
    const started: Pending[] = [];
    let done = 0;
    try {
      while (done < into.length) {
        const here = offset + done;
        const extent = resolve(this.chain, here, into.length - done);
        if (extent === undefined) {
          const loaded = run(loadChain(this.chain, here));
          if (!loaded) continue;
          const rest = done;
          started.push(loaded.then(() => this.#read(offset + rest, into.subarray(rest))));
          break;
        }
        const pending = this.#fetch(extent, into.subarray(done, done + extent.length));
        if (pending) started.push(this.#fenced(pending));
        done += extent.length;
      }
    } catch (error) {
      return failedAfter(started, error);
    }
    return started.length === 0 ? undefined : all(started);
  }

  write(offset: number, from: Uint8Array): Pending {
    this.#changeable(offset, "write");
    return this.#order.run(offset, from.length, () => {
      this.#fits(offset, from.length, "write");
      return this.#told(offset, from.length, () => this.#write(offset, from));
    });
  }

  /** Whether `writePacked` can write compressed here. */
  get packs(): boolean {
    return this.#top.pack !== undefined && this.#top.storePacked !== undefined;
  }

  /** Bytes that are compressed at once. */
  get packSize(): number {
    return this.#top.packSize ?? this.#top.blockSize;
  }

  /**
   * Writes whole pieces of `packSize`, compressed where that makes them smaller; the disk's last one may be short.
   * Blocks are compressed side by side, also those of several calls, and stored in the order of the calls. Refuses as
   * `unsupported` where `packs` is false, as `invalid-argument` what are not whole pieces.
   */
  writePacked(offset: number, from: Uint8Array): Pending {
    this.#changeable(offset, "write compressed");
    return this.#order.run(offset, from.length, () => {
      this.#fits(offset, from.length, "write compressed");
      return this.#told(offset, from.length, () => this.#writePacked(offset, from));
    });
  }

  zero(offset: number, length: number, keep = false): Pending {
    this.#changeable(offset, "zero");
    return this.#order.run(offset, length, () => {
      this.#fits(offset, length, "zero");
      return this.#told(offset, length, () => run(this.#zero(offset, length, keep)));
    });
  }

  discard(offset: number, length: number): Pending {
    this.#changeable(offset, "discard");
    return this.#order.run(offset, length, () => {
      this.#fits(offset, length, "discard");
      const { first, last } = this.#wholeBlocks(offset, length);
      if (first < last) return this.#told(first, Math.min(last, this.size) - first, () => this.#tasks.run(() => this.#top.discard(first, last - first)));
    });
  }

  flush(): Pending {
    this.#open("flush");
    if (this.readOnly) return;
    return this.#tasks.run(() => this.#top.flush());
  }

  /** Changes the guest disk's size; what is new reads as zeros even where a backing file is longer. */
  truncate(size: number): Pending {
    this.#changeable(0, "resize");
    if (!(Number.isSafeInteger(size) && size >= 0)) throw new DiskError("invalid-argument", `${size} is no size of a disk`, { path: this.name, operation: "resize" });
    return this.#order.run(0, Infinity, () => run(this.#resize(size)));
  }

  /** Gives the range `[from, to)` space of its own where it has none; it reads as before. See `Image.preallocate`. */
  preallocate(from: number, to: number, space: Space): Pending {
    this.#changeable(from, "preallocate");
    if (this.#top.preallocate === undefined) throw new DiskError("unsupported", `Unsupported preallocation mode '${space}'`, { path: this.name, format: this.#top.format, operation: "preallocate" });
    return this.#order.run(from, to - from, () => {
      this.#fits(from, to - from, "preallocate");
      return this.#tasks.run(() => this.#preallocate(from, to, space));
    });
  }

  /** Waits for what is in flight, then closes every image of the chain. A second close does nothing. */
  close(): Pending {
    if (this.#closed) return;
    this.#closed = true;
    return run(this.#close());
  }

  /** Drops what the top image has of its own, once what it stands on holds the same. `false`: its format cannot. */
  *empty(): Task<boolean> {
    this.#changeable(0, "empty");
    const empty = this.#top.empty?.bind(this.#top);
    if (empty === undefined) return false;
    yield* call(() => this.#tasks.run(empty));
    return true;
  }

  /** Makes a range read as zeros whatever the top image may come to stand on. What is no whole block is written. */
  *hide(offset: number, length: number): Task {
    this.#changeable(offset, "zero");
    this.#fits(offset, length, "zero");
    const { first, last } = this.#wholeBlocks(offset, length), end = offset + length, hide = this.#top.hide?.bind(this.#top);
    const done = first < last && hide !== undefined && (yield* call(() => this.#tasks.run(() => hide(first, last - first))));
    const gaps = done ? [[offset, first], [Math.min(last, end), end]] as const : [[offset, end]] as const;
    for (const [from, to] of gaps) for (let at = from; at < to; at += MIB) yield wait(() => this.write(at, ZEROS.subarray(0, to - at)));
  }

  /** Names what the top image stands on from its next opening on; what differs was written already. Refused as `unsupported` where the format cannot. */
  *setBacking(to: BackingReference | undefined): Task {
    this.#changeable(0, "rebase");
    const setBacking = this.#top.setBacking?.bind(this.#top);
    if (setBacking === undefined) throw new DiskError("unsupported", `the backing file of a ${this.#top.format} image cannot be changed`, { path: this.name, operation: "rebase" });
    yield wait(() => this.flush());
    yield* call(() => this.#tasks.run(() => setBacking(to)));
  }

  /** What backs the range that starts at `offset`, and for how many bytes. For listings and copies; no data is read. */
  status(offset: number, length: number): Task<Status> {
    return status(this.chain, offset, length);
  }

  #fetch(extent: Extent, into: Uint8Array): Pending {
    switch (extent.kind) {
      case "data": return extent.storage.read(extent.offset, into);
      case "packed": return this.#unpack(extent, into);
      case "zero":
      case "backing": into.fill(0);
    }
  }

  #unpack(extent: PackedExtent, into: Uint8Array): Pending {
    const cluster = this.#unpacked.get(extent.storage, extent.offset);
    // A hostile image may tell of the same bytes as of clusters of two sizes.
    if (cluster?.length !== extent.clusterSize) return run(this.#unpackNow(extent, into));
    into.set(cluster.subarray(extent.skip, extent.skip + into.length));
  }

  *#unpackNow(extent: PackedExtent, into: Uint8Array): Task {
    const packed = new Uint8Array(extent.packedLength);
    yield read(extent.storage, extent.offset, packed);
    if (into.length === extent.clusterSize) {
      if (this.#unpackLater && extent.unpackLater !== undefined) yield wait(() => extent.unpackLater?.(packed, into));
      else extent.unpack(packed, into);
      return;
    }
    const cluster = new Uint8Array(extent.clusterSize);
    extent.unpack(packed, cluster);
    this.#unpacked.put(extent.storage, extent.offset, cluster);
    into.set(cluster.subarray(extent.skip, extent.skip + into.length));
  }

  /** Space that this read may still be looking at is not reused before it ends. */
  #fenced(pending: Promise<void>): Promise<void> {
    const reads = this.#top.reads;
    const ticket = reads.begin();
    return pending.finally(() => { reads.end(ticket); });
  }

  /** Makes a change of what the guest reads, after the image was told of it. */
  #told(offset: number, length: number, change: () => Pending): Pending {
    const told = this.#top.changing?.(offset, length);
    return told ? told.then(change) : change();
  }

  #write(offset: number, from: Uint8Array): Pending {
    const started: Pending[] = [];
    let done = 0;
    try {
      while (done < from.length) {
        const at = offset + done, rest = from.subarray(done);
        const extent = this.#top.map(at, rest.length);
        if (extent?.kind === "data" && extent.writable) {
          const pending = extent.storage.write(extent.offset, rest.subarray(0, extent.length));
          if (pending) started.push(pending);
          done += extent.length;
          continue;
        }
        const written = this.#tasks.run(() => this.#writeNew(at, rest));
        if (written instanceof Promise) {
          started.push(written.then((length) => this.#write(at + length, rest.subarray(length))));
          break;
        }
        done += written;
      }
    } catch (error) {
      return failedAfter(started, error);
    }
    return started.length === 0 ? undefined : all(started);
  }

  /** allocate -> write data -> publish. Answers how many bytes are written; 0: someone allocated them meanwhile. */
  *#writeNew(offset: number, from: Uint8Array): Task<number> {
    const top = this.#top, block = top.blockSize, skip = offset % block;
    const extent = yield* lookUp(top, offset, from.length);
    if (extent.kind === "data" && extent.writable) return 0;
    const whole = skip === 0 ? from.length - (from.length % block) : 0;
    const space = yield* top.allocate(offset - skip, Math.max(whole, block)), before = offset - space.guest;
    try {
      const length = Math.min(from.length, space.length - before);
      const own = from.subarray(0, length), alone = length === space.length || (space.zeroed === true && this.chain.length === 1);
      if (alone) yield write(space.storage, space.offset + before, own);
      else yield write(space.storage, space.offset, yield* this.#copiedUp(space.guest, space.length, before, own));
      yield* top.publish(space);
      return length;
    } catch (error) {
      top.abandon(space);
      throw error;
    }
  }

  /** Copy on write: `length` bytes from `guest` as they are now, with `from` laid over them at `skip`. */
  *#copiedUp(guest: number, length: number, skip: number, from: Uint8Array): Task<Uint8Array> {
    const bytes = new Uint8Array(length), end = skip + from.length;
    if (skip > 0) yield wait(() => this.#read(guest, bytes.subarray(0, skip)));
    if (end < length) yield wait(() => this.#read(guest + end, bytes.subarray(end)));
    bytes.set(from, skip);
    return bytes;
  }

  #writePacked(offset: number, from: Uint8Array): Pending {
    const blocks = packBlocks(this.#top, offset, from);
    return this.#packed.run(() => storeInOrder(blocks, (guest, packed) => this.#tasks.run(() => this.#storePacked(guest, packed)), (guest, bytes) => this.#write(guest, bytes)));
  }

  /** What stood unpacked in the cache for these host bytes was another block's. */
  *#storePacked(guest: number, packed: Uint8Array): Task {
    if (this.#top.storePacked !== undefined) yield* this.#top.storePacked(guest, packed);
    const extent = yield* lookUp(this.#top, guest, 1);
    if (extent.kind === "packed") this.#unpacked.drop(extent.storage, extent.offset);
  }

  *#zero(offset: number, length: number, keep: boolean): Task {
    const end = offset + length;
    let { first, last } = this.#wholeBlocks(offset, length);
    // Of a compressed cluster that holds several blocks no part can be zeroed: those at the edges are written instead.
    if ((this.#top.packSize ?? 0) > this.#top.blockSize) {
      first = Math.min(last, yield* this.#packedEnd(first, last));
      last = Math.max(first, yield* this.#packedStart(last));
    }
    if (first >= last) return yield* this.#writeZeros(offset, length);
    yield* this.#writeZeros(offset, first - offset);
    const done = yield* call(() => this.#tasks.run(() => this.#top.zero(first, last - first, keep)));
    if (!done) yield* this.#writeZeros(first, Math.min(last, end) - first);
    if (last < end) yield* this.#writeZeros(last, end - last);
  }

  /** Where a compressed cluster that began before `offset` ends; `offset`, if it is in none. */
  *#packedEnd(offset: number, end: number): Task<number> {
    const extent = offset < end ? yield* lookUp(this.#top, offset, 1) : undefined;
    return extent?.kind === "packed" && extent.skip > 0 ? offset - extent.skip + extent.clusterSize : offset;
  }

  /** Where a compressed cluster that goes on behind `offset` begins; `offset`, if it is in none. */
  *#packedStart(offset: number): Task<number> {
    const extent = offset < this.size ? yield* lookUp(this.#top, offset, 1) : undefined;
    return extent?.kind === "packed" ? offset - extent.skip : offset;
  }

  /** Zeros as plain data, but only where the range does not read as zeros already. */
  *#writeZeros(offset: number, length: number): Task {
    const end = offset + length;
    while (offset < end) {
      const { extent } = yield* this.status(offset, Math.min(end - offset, MIB));
      const reads = extent.kind === "zero" || extent.kind === "backing";
      if (!reads) yield wait(() => this.#write(offset, ZEROS.subarray(0, extent.length)));
      offset += extent.length;
    }
  }

  *#resize(size: number): Task {
    if (size > this.size) {
      yield* call(() => this.#tasks.run(() => this.#reserve(size)));
      yield* this.#clearBeyond(this.size, size);
    }
    yield* call(() => this.#tasks.run(() => this.#top.resize(size)));
  }

  *#preallocate(from: number, to: number, space: Space): Task {
    if (this.#top.preallocate !== undefined) yield* this.#top.preallocate(from, to, space, noProgress);
  }

  *#reserve(size: number): Task {
    if (this.#top.reserve !== undefined) yield* this.#top.reserve(size);
  }

  /** What stands behind the old end, in its last block or in a longer backing file, was never the guest's: it goes before the disk grows. */
  *#clearBeyond(old: number, size: number): Task {
    const block = this.#top.blockSize, first = Math.max(Math.ceil(old / block) * block, yield* this.#packedEnd(old, size));
    const shows = Math.min(size, this.chain[1]?.size ?? 0), last = Math.ceil(shows / block) * block;
    yield* this.#clear(old, Math.min(first, size));
    if (first >= last) return;
    const done = yield* call(() => this.#tasks.run(() => this.#top.zero(first, last - first, false)));
    if (!done) yield* this.#clear(first, shows);
  }

  /** Writes zeros, from `offset` to `end`, where anything else is to be seen, or will be once the disk reaches there. */
  *#clear(offset: number, end: number): Task {
    while (offset < end) {
      let extent = yield* lookUp(this.#top, offset, Math.min(end - offset, MIB));
      if (extent.kind === "backing") ({ extent } = yield* status(this.chain.slice(1), offset, extent.length));
      if (extent.kind === "data" || extent.kind === "packed") yield wait(() => this.#write(offset, ZEROS.subarray(0, extent.length)));
      offset += extent.length;
    }
  }

  *#close(): Task {
    yield wait(() => this.#order.idle());
    yield wait(() => (this.#reads.size === 0 ? undefined : Promise.allSettled(this.#reads).then(() => undefined)));
    const failures: unknown[] = [];
    for (const image of this.chain) {
      try {
        yield* call(() => this.#tasks.run(() => image.close()));
      } catch (error) {
        failures.push(error);
      }
    }
    this.#unpacked.clear();
    if (failures.length > 0) throw failures[0];
  }

  /** The whole blocks inside the range; the disk's last block counts as whole when the range reaches the disk's end. */
  #wholeBlocks(offset: number, length: number): { first: number; last: number } {
    const block = this.#top.blockSize, end = offset + length;
    return { first: Math.ceil(offset / block) * block, last: (end === this.size ? Math.ceil(end / block) : Math.floor(end / block)) * block };
  }

  #open(operation: string): void {
    if (this.#closed) throw new DiskError("invalid-argument", `${operation} after close`, { path: this.name, operation });
  }

  #changeable(offset: number, operation: string): void {
    this.#open(operation);
    if (this.readOnly) throw new DiskError("read-only", `cannot ${operation}: the disk is open read-only; put an overlay on it or open it for writing`, { path: this.name, offset, operation });
  }

  /** Asked when a change begins: one that waited may find the disk resized. */
  #fits(offset: number, length: number, operation: string): void {
    if (Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= this.size) return;
    throw new DiskError("out-of-bounds", `cannot ${operation} ${length} bytes: the disk has ${this.size}`, { path: this.name, offset, operation });
  }
}
