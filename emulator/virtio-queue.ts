import { fits, type GuestMemory, type Segment } from "./guest-memory.ts";

/** Virtio 1.1, 2.6: split virtqueues. Offsets and flags of the structures the driver lays out in its RAM. */
const DESCRIPTOR_SIZE = 16;
const DESC_F_NEXT = 1;
const DESC_F_WRITE = 2;
const DESC_F_INDIRECT = 4;
const AVAIL_F_NO_INTERRUPT = 1;
const RING = 4;
const USED_ELEMENT = 8;

/** A whole request may hold at most this many descriptors, those of an indirect table counted. */
const MAX_DESCRIPTORS = 1024;

/** The driver broke the rules of the queue: nothing it says can be trusted until it resets the device. */
export class QueueError extends Error {
  override readonly name = "QueueError";
}

/** One request: what the device reads, then what it writes. */
export interface Chain {
  readonly head: number;
  readonly readable: readonly Segment[];
  readonly writable: readonly Segment[];
}

/** Where a driver put its queue, as the transport's registers say. */
export interface QueueSetup {
  size: number;
  descriptors: number;
  available: number;
  used: number;
}

/** The device's end of one split virtqueue. Whatever the guest wrote there, it throws at worst a `QueueError`. */
export class SplitQueue {
  /** Whether the driver negotiated event indices (2.6.7): each side says when it wants to be told. */
  eventIndex = false;
  #lastAvailable = 0;
  #usedIndex = 0;
  /** The used index when the driver was last interrupted, or need not be. */
  #signalled = 0;

  constructor(readonly memory: GuestMemory, readonly setup: Readonly<QueueSetup>) {
    const { size, descriptors, available, used } = setup;
    if (size === 0 || (size & (size - 1)) !== 0) throw new QueueError(`queue size ${size} is not a power of two`);
    this.#need(descriptors, DESCRIPTOR_SIZE * size, "descriptor table");
    this.#need(available, RING + 2 * size + 2, "available ring");
    this.#need(used, RING + USED_ELEMENT * size + 2, "used ring");
  }

  /** The next request the driver made available, or `undefined`. */
  pop(): number | undefined {
    const { size, available } = this.setup;
    const view = this.memory.view();
    const ahead = (view.getUint16(available + 2, true) - this.#lastAvailable) & 0xffff;
    if (ahead === 0) return undefined;
    if (ahead > size) throw new QueueError(`${ahead} requests are available in a queue of ${size}`);
    const head = view.getUint16(available + RING + 2 * (this.#lastAvailable % size), true);
    this.#lastAvailable = (this.#lastAvailable + 1) & 0xffff;
    if (head >= size) throw new QueueError(`descriptor ${head} does not exist`);
    return head;
  }

  /** Asks to be notified of the next request. Look once more afterwards: it may have come before this. */
  askForNotification(): void {
    if (!this.eventIndex) return;
    const { size, used } = this.setup;
    const at = used + RING + USED_ELEMENT * size;
    this.memory.written(at, 2);
    this.memory.view().setUint16(at, this.#lastAvailable, true);
  }

  /** Follows a request's descriptors. */
  chain(head: number): Chain {
    const walk: Walk = { readable: [], writable: [], count: 0 };
    const { descriptors, size } = this.setup;
    this.#follow(walk, descriptors, size, head, true);
    return { head, readable: walk.readable, writable: walk.writable };
  }

  /** Gives a request back; `written` bytes of its writable part are new. */
  complete(head: number, written: number): void {
    const { size, used } = this.setup;
    const view = this.memory.view();
    const element = used + RING + USED_ELEMENT * (this.#usedIndex % size);
    this.memory.written(used, RING + USED_ELEMENT * size);
    view.setUint32(element, head, true);
    view.setUint32(element + 4, written, true);
    this.#usedIndex = (this.#usedIndex + 1) & 0xffff;
    view.setUint16(used + 2, this.#usedIndex, true);
  }

  /** Whether the driver wants an interrupt for what was completed since this was last asked (2.6.7). */
  wantsInterrupt(): boolean {
    const { size, available } = this.setup;
    const before = this.#signalled;
    this.#signalled = this.#usedIndex;
    if (before === this.#usedIndex) return false;
    const view = this.memory.view();
    if (!this.eventIndex) return (view.getUint16(available, true) & AVAIL_F_NO_INTERRUPT) === 0;
    const event = view.getUint16(available + RING + 2 * size, true);
    return ((this.#usedIndex - event - 1) & 0xffff) < ((this.#usedIndex - before) & 0xffff);
  }

  saveIndices(): number[] {
    return [this.#lastAvailable, this.#usedIndex, this.#signalled];
  }

  restoreIndices([lastAvailable = 0, usedIndex = 0, signalled = 0]: readonly number[]): void {
    this.#lastAvailable = lastAvailable;
    this.#usedIndex = usedIndex;
    this.#signalled = signalled;
  }

  #follow(walk: Walk, table: number, count: number, index: number, mayBeIndirect: boolean): void {
    for (;;) {
      if (index >= count) throw new QueueError(`descriptor ${index} does not exist`);
      if (++walk.count > MAX_DESCRIPTORS) throw new QueueError("the descriptors run in a circle");
      const view = this.memory.view();
      const at = table + DESCRIPTOR_SIZE * index;
      const address = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
      const length = view.getUint32(at + 8, true);
      const flags = view.getUint16(at + 12, true);
      this.#need(address, length, "buffer");
      if (flags & DESC_F_INDIRECT) return this.#indirect(walk, address, length, flags, mayBeIndirect);
      this.#add(walk, { address, length }, (flags & DESC_F_WRITE) !== 0);
      if ((flags & DESC_F_NEXT) === 0) return;
      index = view.getUint16(at + 14, true);
    }
  }

  #indirect(walk: Walk, address: number, length: number, flags: number, allowed: boolean): void {
    if (!allowed || flags & DESC_F_NEXT) throw new QueueError("an indirect table may only end a chain, and not in another");
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) throw new QueueError(`an indirect table of ${length} bytes`);
    this.#follow(walk, address, length / DESCRIPTOR_SIZE, 0, false);
  }

  #add(walk: Walk, segment: Segment, writable: boolean): void {
    if (!writable && walk.writable.length > 0) throw new QueueError("a readable descriptor follows a writable one");
    (writable ? walk.writable : walk.readable).push(segment);
  }

  #need(address: number, length: number, what: string): void {
    if (!fits(this.memory, address, length)) throw new QueueError(`a ${what} of ${length} bytes at 0x${address.toString(16)} is not in RAM`);
  }
}

interface Walk { readonly readable: Segment[]; readonly writable: Segment[]; count: number }
