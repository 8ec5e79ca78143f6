import type { Storage } from "../../disk/storage.ts";
import { Drive } from "../../emulator/drive.ts";
import type { GuestMemory } from "../../emulator/guest-memory.ts";
import type { IoBar } from "../../emulator/v86-pci.ts";
import { VirtioBlk } from "../../emulator/virtio-blk.ts";
import { VirtioPci } from "../../emulator/virtio-pci.ts";

export const IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13;
export const OK = 0, IOERR = 1, UNSUPP = 2, PENDING = 0xee;
export const NEEDS_RESET = 64;
export const F_FLUSH = 1 << 9, F_CONFIG_WCE = 1 << 11, F_INDIRECT = 1 << 28, F_EVENT_IDX = 1 << 29;
export const NEXT = 1, WRITE = 2, INDIRECT = 4;

export const RAM = 1 << 20;
const TABLE = 0x1000, AVAILABLE = 0x3000, USED = 0x4000, BUFFERS = 0x8000;
/** What a legacy queue of 256 occupies from its page on. */
const LEGACY = { descriptors: 0x1000, available: 0x2000, used: 0x3000 };

const NO_DATA = new Uint8Array(0);

export interface RequestOptions {
  sector?: number;
  /** Data for the device, and room for data from it. */
  out?: Uint8Array;
  into?: number;
  segment?: number;
  indirect?: boolean;
  notify?: boolean;
}

export class FakeMemory implements GuestMemory {
  readonly size = RAM;
  readonly ram = new Uint8Array(RAM);
  readonly #view = new DataView(this.ram.buffer);
  readonly dirty: [number, number][] = [];
  bytes = (): Uint8Array => this.ram;
  view = (): DataView => this.#view;
  written = (address: number, length: number): void => void this.dirty.push([address, length]);
}

export interface Descriptor { address: number; length: number; flags: number; next?: number }

/** A virtio-blk driver without an operating system: lays out queues and requests in an array. */
export class FakeDriver {
  readonly drive: Drive;
  readonly device: VirtioPci;
  readonly blk: VirtioBlk;
  /** How often the interrupt line went up. */
  interrupts = 0;
  line = false;
  size = 256;
  #bars: readonly IoBar[];
  #queue = { descriptors: TABLE, available: AVAILABLE, used: USED };
  #nextDescriptor = 0;
  #nextBuffer = BUFFERS;
  #seen = 0;

  constructor(storage: Storage, readonly memory = new FakeMemory(), readOnly = false) {
    this.drive = new Drive("virtio0", storage, readOnly);
    this.blk = new VirtioBlk(this.drive, memory);
    this.device = new VirtioPci(this.blk, memory);
    this.device.connect({
      raise: () => {
        if (!this.line) this.interrupts++;
        this.line = true;
      },
      lower: () => { this.line = false; },
    });
    this.#bars = this.device.function.bars;
  }

  get view(): DataView { return this.memory.view(); }
  legacy(offset: number, width: number, value?: number): number { return this.#port(0, offset, width, value); }
  modern(offset: number, width: number, value?: number): number { return this.#port(1, offset, width, value); }

  /** 3.1.1 of the specification. The features that the device kept. */
  startModern(features = F_FLUSH | F_INDIRECT, { size = 256 } = {}): boolean {
    this.size = size;
    this.modern(20, 1, 0);
    this.modern(20, 1, 3);
    for (const [select, value] of [[0, features], [1, 1]] as const) {
      this.modern(8, 4, select);
      this.modern(12, 4, value);
    }
    this.modern(20, 1, 11);
    if ((this.modern(20, 1) & 8) === 0) return false;
    this.#forget({ descriptors: TABLE, available: AVAILABLE, used: USED });
    this.modern(22, 2, 0);
    this.modern(24, 2, size);
    for (const [at, address] of [[32, TABLE], [40, AVAILABLE], [48, USED]] as const) {
      this.modern(at, 4, address);
      this.modern(at + 4, 4, 0);
    }
    this.modern(28, 2, 1);
    this.modern(20, 1, 15);
    return true;
  }

  startLegacy(features = F_FLUSH): void {
    this.size = 256;
    this.legacy(18, 1, 0);
    this.legacy(18, 1, 3);
    this.legacy(4, 4, features);
    this.#forget(LEGACY);
    this.legacy(14, 2, 0);
    this.legacy(8, 4, LEGACY.descriptors / 4096);
    this.legacy(18, 1, 7);
  }

  allocate(bytes: Uint8Array | number): number {
    const address = this.#nextBuffer;
    const length = typeof bytes === "number" ? bytes : bytes.length;
    this.#nextBuffer += (length + 15) & ~15;
    if (this.#nextBuffer > RAM) throw new RangeError("the fake guest is out of memory");
    if (typeof bytes !== "number") this.memory.ram.set(bytes, address);
    return address;
  }

  header(type: number, sector = 0): number {
    const address = this.allocate(16);
    this.view.setUint32(address, type, true);
    this.view.setUint32(address + 8, sector % 2 ** 32, true);
    this.view.setUint32(address + 12, Math.floor(sector / 2 ** 32), true);
    return address;
  }

  /** A whole request; its data is cut into segments of at most `segment` bytes. */
  request(type: number, { sector = 0, out = NO_DATA, into = 0, segment = 1 << 20, indirect = false, notify = true }: RequestOptions = {}): Request {
    const status = this.allocate(Uint8Array.of(PENDING));
    const target = this.allocate(into);
    const source = this.allocate(out);
    const cut = (address: number, length: number, flags: number): Descriptor[] =>
      Array.from({ length: Math.ceil(length / segment) }, (_, i) => ({ address: address + i * segment, length: Math.min(segment, length - i * segment), flags }));
    const descriptors = [
      { address: this.header(type, sector), length: 16, flags: 0 }, ...cut(source, out.length, 0), ...cut(target, into, WRITE),
      { address: status, length: 1, flags: WRITE },
    ];
    const head = indirect ? this.indirect(descriptors) : this.chain(descriptors);
    if (notify) this.notify();
    return { head, target, status: () => this.memory.ram[status] ?? PENDING, data: () => this.memory.ram.slice(target, target + into) };
  }

  /** Writes a chain into the table and makes it available. */
  chain(descriptors: readonly Descriptor[]): number {
    const head = this.#nextDescriptor;
    for (const [index, descriptor] of descriptors.entries()) {
      const last = index === descriptors.length - 1;
      this.write(this.#queue.descriptors, (head + index) % this.size, { next: (head + index + 1) % this.size, ...descriptor, flags: descriptor.flags | (last ? 0 : NEXT) });
    }
    this.#nextDescriptor = (head + descriptors.length) % this.size;
    this.offer(head);
    return head;
  }

  indirect(descriptors: readonly Descriptor[]): number {
    const table = this.allocate(16 * descriptors.length);
    for (const [index, descriptor] of descriptors.entries()) {
      this.write(table, index, { next: index + 1, ...descriptor, flags: descriptor.flags | (index < descriptors.length - 1 ? NEXT : 0) });
    }
    return this.chain([{ address: table, length: 16 * descriptors.length, flags: INDIRECT }]);
  }

  write(table: number, index: number, { address, length, flags, next = 0 }: Descriptor): void {
    const at = table + 16 * index;
    this.view.setUint32(at, address % 2 ** 32, true);
    this.view.setUint32(at + 4, Math.floor(address / 2 ** 32), true);
    this.view.setUint32(at + 8, length, true);
    this.view.setUint16(at + 12, flags, true);
    this.view.setUint16(at + 14, next, true);
  }

  offer(head: number): void {
    const { available } = this.#queue;
    const index = this.view.getUint16(available + 2, true);
    this.view.setUint16(available + 4 + 2 * (index % this.size), head, true);
    this.view.setUint16(available + 2, (index + 1) & 0xffff, true);
  }

  notify(): void {
    if (this.#queue === LEGACY) this.legacy(16, 2, 0);
    else this.modern(0x44, 2, 0);
  }

  /** Interrupt only when the device has used this many requests (event index). */
  interruptAt(usedIndex: number): void {
    this.view.setUint16(this.#queue.available + 4 + 2 * this.size, usedIndex & 0xffff, true);
  }

  suppressInterrupts(): void {
    this.view.setUint16(this.#queue.available, 1, true);
  }

  get notifyAt(): number {
    return this.view.getUint16(this.#queue.used + 4 + 8 * this.size, true);
  }

  /** Heads and lengths that the device gave back since this was last asked. */
  used(): { head: number; length: number }[] {
    const { used } = this.#queue;
    const list: { head: number; length: number }[] = [];
    for (; this.#seen !== this.view.getUint16(used + 2, true); this.#seen = (this.#seen + 1) & 0xffff) {
      const at = used + 4 + 8 * (this.#seen % this.size);
      list.push({ head: this.view.getUint32(at, true), length: this.view.getUint32(at + 4, true) });
    }
    return list;
  }

  get status(): number {
    return this.modern(20, 1);
  }

  #forget(queue: typeof LEGACY): void {
    this.#queue = queue;
    this.memory.ram.fill(0, 0x1000, BUFFERS);
    this.#nextDescriptor = this.#seen = 0;
    this.#nextBuffer = BUFFERS;
  }

  #port(bar: number, offset: number, width: number, value?: number): number {
    const ports = this.#bars[bar];
    if (value === undefined) return (ports?.read(offset, width) ?? 0) >>> 0 & (width === 4 ? 0xffffffff : (1 << (8 * width)) - 1);
    ports?.write(offset, width, value);
    return 0;
  }
}

export interface Request { readonly head: number; readonly target: number; status(): number; data(): Uint8Array }
