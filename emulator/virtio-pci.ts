import type { GuestMemory } from "./guest-memory.ts";
import type { StateTree } from "./v86-internals.ts";
import type { IoBar, IrqLine, PciFunction } from "./v86-pci.ts";
import { BLOCK_DEVICE_ID, type Token, type VirtioBlk } from "./virtio-blk.ts";
import { type Register, registerBar } from "./virtio-registers.ts";
import { QueueError, type QueueSetup, SplitQueue } from "./virtio-queue.ts";

/** Virtio 1.1, 2.1: device status bits. 4.1.4.5: interrupt causes. */
const STATUS_DRIVER_OK = 4;
const STATUS_FEATURES_OK = 8;
const STATUS_NEEDS_RESET = 64;
const ISR_QUEUE = 1;
const ISR_CONFIG = 2;

/** 6: feature bits of the transport and the queue. The last one is bit 32: bit 0 of the high half. */
const F_ANY_LAYOUT = 1 << 27;
const F_RING_INDIRECT_DESC = 1 << 28;
const F_RING_EVENT_IDX = 1 << 29;
const F_VERSION_1_HIGH = 1;

const QUEUE_SIZE = 256;
/** 4.1.5.1.3: a legacy queue is given by its page number; its used ring starts on a page of its own. */
const PAGE = 4096;
const NO_VECTOR = 0xffff;

/** 4.1.4: offsets of the modern structures within their I/O window, which the PCI capabilities announce. */
const MODERN_SIZE = 256;
const ISR_AT = 0x40;
const NOTIFY_AT = 0x44;
const DEVICE_AT = 0x80;
const COMMON_SIZE = 56;
const LEGACY_SIZE = 128;
const LEGACY_DEVICE_AT = 20;

/**
 * A virtio block device on a PCI bus without message interrupts: transitional, so that firmware and old drivers use
 * it by the legacy window (BAR 0), new ones by the modern structures in BAR 1.
 */
export class VirtioPci {
  readonly #queue: QueueSetup = { size: QUEUE_SIZE, descriptors: 0, available: 0, used: 0 };
  readonly #inFlight = new Map<number, Token>();
  #irq: IrqLine = { raise: () => {}, lower: () => {} };
  #ring: SplitQueue | undefined;
  #status = 0;
  #isr = 0;
  #queueSelect = 0;
  #deviceFeatureSelect = 0;
  #driverFeatureSelect = 0;
  #driverFeatures: [low: number, high: number] = [0, 0];
  #kicking = false;
  readonly #offered: readonly number[];

  constructor(readonly device: VirtioBlk, readonly memory: GuestMemory) {
    this.#offered = [device.offered | F_ANY_LAYOUT | F_RING_INDIRECT_DESC | F_RING_EVENT_IDX, F_VERSION_1_HIGH];
  }

  /** What goes on the bus. */
  get function(): PciFunction {
    return { name: "virtio-blk", configuration: configurationSpace(), bars: this.#bars() };
  }

  connect(irq: IrqLine): void {
    this.#irq = irq;
  }

  get requestsInFlight(): number {
    return this.#inFlight.size;
  }

  /** By the driver (status 0) or with the machine. Requests in flight are forgotten: their completions touch nothing. */
  reset(): void {
    for (const token of this.#inFlight.values()) token.dropped = true;
    this.#inFlight.clear();
    this.device.reset();
    this.#ring = undefined;
    Object.assign(this.#queue, { size: QUEUE_SIZE, descriptors: 0, available: 0, used: 0 });
    this.#status = this.#queueSelect = this.#deviceFeatureSelect = this.#driverFeatureSelect = 0;
    this.#driverFeatures = [0, 0];
    this.#acknowledge();
  }

  save(): StateTree {
    const { size, descriptors, available, used } = this.#queue;
    return [
      [this.#status, this.#isr, this.#queueSelect, this.#deviceFeatureSelect, this.#driverFeatureSelect, ...this.#driverFeatures],
      [size, descriptors, available, used], this.#ring ? this.#ring.saveIndices() : null,
      [...this.device.config], [...this.#inFlight.keys()],
    ];
  }

  /** After guest RAM was restored. Requests that were in flight are executed again: the guest still waits for them. */
  restore(state: StateTree): void {
    const [registers, queue, indices, config, heads] = state as [number[], number[], number[] | null, number[], number[]];
    this.reset();
    const [status = 0, isr = 0, queueSelect = 0, deviceFeatureSelect = 0, driverFeatureSelect = 0, low = 0, high = 0] = registers;
    const [size = 0, descriptors = 0, available = 0, used = 0] = queue;
    Object.assign(this.#queue, { size, descriptors, available, used });
    this.#driverFeatures = [low, high];
    this.device.accepted = low;
    for (const [offset, value] of config.entries()) this.device.writeConfig(offset, value);
    if (indices) this.#guarded(() => this.#enable());
    this.#ring?.restoreIndices(indices ?? []);
    this.#status = status;
    this.#queueSelect = queueSelect;
    this.#deviceFeatureSelect = deviceFeatureSelect;
    this.#driverFeatureSelect = driverFeatureSelect;
    if (isr) this.#interrupt(isr);
    this.#kick(heads);
  }

  /** Executes `heads` and then whatever is available. */
  #kick(heads: readonly number[] = []): void {
    const ring = this.#ring;
    if (!ring || this.#kicking || this.#status & STATUS_NEEDS_RESET) return;
    this.#kicking = true;
    try {
      this.#guarded(() => {
        for (const head of heads) this.#execute(ring, head);
        this.#drain(ring);
      });
    } finally {
      this.#kicking = false;
    }
    if (this.#ring === ring && ring.wantsInterrupt()) this.#interrupt(ISR_QUEUE);
  }

  #drain(ring: SplitQueue): void {
    for (let count = 0; ; count++) {
      let head = ring.pop();
      if (head === undefined) {
        ring.askForNotification();
        head = ring.pop();
      }
      if (head === undefined) return;
      if (count > ring.setup.size) throw new QueueError("requests keep appearing without the guest running");
      this.#execute(ring, head);
    }
  }

  #execute(ring: SplitQueue, head: number): void {
    if (this.#inFlight.has(head)) throw new QueueError(`request ${head} is in flight already`);
    const token: Token = { dropped: false };
    this.#inFlight.set(head, token);
    this.device.execute(ring.chain(head), token, (written) => {
      this.#inFlight.delete(head);
      ring.complete(head, written);
      if (!this.#kicking && ring.wantsInterrupt()) this.#interrupt(ISR_QUEUE);
    });
  }

  /** 2.1.2: a driver that broke the rules finds NEEDS_RESET, and nothing else happens until it resets the device. */
  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      if (!(error instanceof QueueError)) throw error;
      for (const token of this.#inFlight.values()) token.dropped = true;
      this.#inFlight.clear();
      this.#ring = undefined;
      this.#status |= STATUS_NEEDS_RESET;
      if (this.#status & STATUS_DRIVER_OK) this.#interrupt(ISR_CONFIG);
    }
  }

  #interrupt(cause: number): void {
    this.#isr |= cause;
    this.#irq.raise();
  }

  /** Reading the cause lowers the line. */
  #acknowledge(): number {
    const isr = this.#isr;
    this.#isr = 0;
    this.#irq.lower();
    return isr;
  }

  #setStatus(value: number): void {
    if (value === 0) return this.reset();
    if (value & STATUS_FEATURES_OK && !this.#acceptable()) value &= ~STATUS_FEATURES_OK;
    this.#status = value | (this.#status & STATUS_NEEDS_RESET);
    this.device.accepted = this.#driverFeatures[0];
  }

  #acceptable(): boolean {
    const [low, high] = this.#driverFeatures;
    return (low & ~(this.#offered[0] ?? 0)) === 0 && high === F_VERSION_1_HIGH;
  }

  #enable(): void {
    this.#ring = undefined;
    if (this.#queue.size > QUEUE_SIZE) throw new QueueError(`queue size ${this.#queue.size} is over ${QUEUE_SIZE}`);
    this.#ring = new SplitQueue(this.memory, { ...this.#queue });
    this.#ring.eventIndex = (this.#driverFeatures[0] & F_RING_EVENT_IDX) !== 0;
  }

  /** 2.6.2: how a legacy driver lays out a queue from one page number. */
  #setLegacyQueue(page: number): void {
    if (this.#queueSelect !== 0) return;
    this.#ring = undefined;
    const descriptors = page * PAGE;
    const available = descriptors + 16 * QUEUE_SIZE;
    const used = Math.ceil((available + 6 + 2 * QUEUE_SIZE) / PAGE) * PAGE;
    Object.assign(this.#queue, { size: QUEUE_SIZE, descriptors, available, used });
    if (page !== 0) this.#guarded(() => this.#enable());
  }

  #bars(): IoBar[] {
    const config = { bytes: this.device.config, write: (at: number, value: number) => this.device.writeConfig(at, value) };
    return [
      registerBar(LEGACY_SIZE, this.#legacyRegisters(), { ...config, at: LEGACY_DEVICE_AT }),
      registerBar(MODERN_SIZE, this.#modernRegisters(), { ...config, at: DEVICE_AT }),
    ];
  }

  /** 4.1.4.8: the legacy header. */
  #legacyRegisters(): Register[] {
    const first = (): boolean => this.#queueSelect === 0;
    return [
      { at: 0, width: 4, read: () => this.#offered[0] ?? 0 },
      { at: 4, width: 4, read: () => this.#driverFeatures[0], write: (value) => {
        this.#driverFeatures = [value & (this.#offered[0] ?? 0), 0];
        this.device.accepted = this.#driverFeatures[0];
      } },
      { at: 8, width: 4, read: () => (this.#ring && first() ? this.#queue.descriptors / PAGE : 0), write: (value) => this.#setLegacyQueue(value) },
      { at: 12, width: 2, read: () => (first() ? QUEUE_SIZE : 0) },
      { at: 14, width: 2, read: () => this.#queueSelect, write: (value) => { this.#queueSelect = value; } },
      { at: 16, width: 2, read: () => 0, write: () => this.#kick() },
      { at: 18, width: 1, read: () => this.#status, write: (value) => this.#setStatus(value) },
      { at: 19, width: 1, read: () => this.#acknowledge() },
    ];
  }

  /** 4.1.4.3 to 4.1.4.5: common configuration, notification, interrupt status. */
  #modernRegisters(): Register[] {
    const first = (): boolean => this.#queueSelect === 0;
    return [
      { at: 0, width: 4, read: () => this.#deviceFeatureSelect, write: (value) => { this.#deviceFeatureSelect = value; } },
      { at: 4, width: 4, read: () => this.#offered[this.#deviceFeatureSelect] ?? 0 },
      { at: 8, width: 4, read: () => this.#driverFeatureSelect, write: (value) => { this.#driverFeatureSelect = value; } },
      { at: 12, width: 4, read: () => this.#driverFeatures[this.#driverFeatureSelect] ?? 0, write: (value) => {
        if (this.#driverFeatureSelect < 2) this.#driverFeatures[this.#driverFeatureSelect] = value;
      } },
      { at: 16, width: 2, read: () => NO_VECTOR },
      { at: 18, width: 2, read: () => 1 },
      { at: 20, width: 1, read: () => this.#status, write: (value) => this.#setStatus(value) },
      { at: 21, width: 1, read: () => 0 },
      { at: 22, width: 2, read: () => this.#queueSelect, write: (value) => { this.#queueSelect = value; } },
      { at: 24, width: 2, read: () => (first() ? this.#queue.size : 0), write: (value) => { if (first()) this.#queue.size = value; } },
      { at: 26, width: 2, read: () => NO_VECTOR },
      { at: 28, width: 2, read: () => (first() && this.#ring ? 1 : 0), write: (value) => { if (first() && value === 1) this.#guarded(() => this.#enable()); } },
      { at: 30, width: 2, read: () => 0 },
      ...this.#address(32, "descriptors"), ...this.#address(40, "available"), ...this.#address(48, "used"),
      { at: ISR_AT, width: 1, read: () => this.#acknowledge() },
      { at: NOTIFY_AT, width: 2, read: () => 0, write: () => this.#kick() },
    ];
  }

  /** A 64-bit address, written in halves. One beyond RAM is found out when the queue is enabled. */
  #address(at: number, part: "descriptors" | "available" | "used"): Register[] {
    const queue = this.#queue;
    const low = (): number => queue[part] % 2 ** 32;
    const high = (): number => Math.floor(queue[part] / 2 ** 32);
    return [
      { at, width: 4, read: low, write: (value) => { if (this.#queueSelect === 0) queue[part] = high() * 2 ** 32 + value; } },
      { at: at + 4, width: 4, read: high, write: (value) => { if (this.#queueSelect === 0) queue[part] = value * 2 ** 32 + low(); } },
    ];
  }
}

/** PCI ids of 4.1.2, class "mass storage, other", and the capabilities of 4.1.4 one after another. */
function configurationSpace(): Uint8Array {
  const space = new Uint8Array(256);
  const view = new DataView(space.buffer);
  view.setUint16(0x00, 0x1af4, true);
  view.setUint16(0x02, 0x1000 + BLOCK_DEVICE_ID - 1, true);
  view.setUint16(0x04, 7, true);
  view.setUint16(0x06, 0x10, true);
  space.set([0, 0, 0x80, 0x01], 0x08);
  view.setUint16(0x2c, 0x1af4, true);
  view.setUint16(0x2e, BLOCK_DEVICE_ID, true);
  space[0x34] = 0x40;
  space[0x3d] = 1;
  const capabilities: [type: number, offset: number, length: number][] = [
    [1, 0, COMMON_SIZE], [3, ISR_AT, 1], [2, NOTIFY_AT, 4], [4, DEVICE_AT, MODERN_SIZE - DEVICE_AT], [5, 0, 0],
  ];
  let at = 0x40;
  for (const [index, [type, offset, length]] of capabilities.entries()) {
    // A notification capability ends in the multiplier of queue numbers (0: one register for all), the access one in a window.
    const size = type === 2 || type === 5 ? 20 : 16;
    space.set([0x09, index + 1 < capabilities.length ? at + size : 0, size, type, type === 5 ? 0 : 1], at);
    view.setUint32(at + 8, offset, true);
    view.setUint32(at + 12, length, true);
    at += size;
  }
  return space;
}
