import type { Pending } from "../disk/storage.ts";
import { all } from "../disk/storage.ts";
import { after, type Drive, type DriveRequest, SECTOR } from "./drive.ts";
import { gather, type GuestMemory, scatter, type Segment, slice, totalLength } from "./guest-memory.ts";
import { type Chain, QueueError } from "./virtio-queue.ts";

/** Virtio 1.1, 5.2: block device. */
export const BLOCK_DEVICE_ID = 2;

/** 5.2.3: feature bits. */
const F_SIZE_MAX = 1 << 1;
const F_SEG_MAX = 1 << 2;
const F_GEOMETRY = 1 << 4;
const F_RO = 1 << 5;
const F_BLK_SIZE = 1 << 6;
const F_FLUSH = 1 << 9;
const F_TOPOLOGY = 1 << 10;
const F_CONFIG_WCE = 1 << 11;
const F_DISCARD = 1 << 13;
const F_WRITE_ZEROES = 1 << 14;

/** 5.2.6: request types, statuses, and the header before the data: type, reserved, sector. */
const T_IN = 0;
const T_OUT = 1;
const T_FLUSH = 4;
const T_GET_ID = 8;
const T_DISCARD = 11;
const T_WRITE_ZEROES = 13;
const S_OK = 0;
const S_IOERR = 1;
const S_UNSUPP = 2;
const HEADER_SIZE = 16;
const ID_SIZE = 20;

/** 5.2.6: a range of DISCARD and WRITE_ZEROES: sector, count, flags. */
const RANGE_SIZE = 16;
const RANGE_F_UNMAP = 1;

/** 5.2.4: the configuration. */
const CONFIG_SIZE = 60;
const CONFIG_WRITEBACK = 32;
const SEG_MAX = 126;
const SIZE_MAX = 64 << 10;
const MAX_RANGE_SECTORS = 0x3fffff;
const MAX_RANGES = 16;
/** Guests align partitions and batch discards to this: the common cluster size of images. */
const CLUSTER_SECTORS = 128;

/** What a well-behaved driver may ask for at once is half of this; more is refused rather than allocated. */
const MAX_REQUEST = 16 << 20;

/** A request between the queue and its completion. The transport sets `dropped` at reset: then guest RAM is no longer its own. */
export interface Token { dropped: boolean }

/** The block device behind the transport: requests in, completions out. It keeps no state but the cache mode. */
export class VirtioBlk {
  /** The low 32 feature bits. */
  readonly offered: number;
  readonly config = new Uint8Array(CONFIG_SIZE);
  /** The feature bits that the driver accepted. */
  accepted = 0;

  constructor(readonly drive: Drive, readonly memory: GuestMemory, readonly serial: string = drive.name) {
    const always = F_SIZE_MAX | F_SEG_MAX | F_GEOMETRY | F_BLK_SIZE | F_TOPOLOGY | F_FLUSH | F_CONFIG_WCE;
    this.offered = drive.readOnly ? always | F_RO : always | F_DISCARD | F_WRITE_ZEROES;
    this.#describe(new DataView(this.config.buffer));
    this.reset();
  }

  /** Back to what a driver finds at power-on: the write cache is on. */
  reset(): void {
    this.accepted = 0;
    this.config[CONFIG_WRITEBACK] = 1;
  }

  writeConfig(offset: number, value: number): void {
    if (offset === CONFIG_WRITEBACK) this.config[CONFIG_WRITEBACK] = value & 1;
  }

  /** Executes a request. `complete` is called once, perhaps in this call; never for a dropped one. */
  execute(chain: Chain, token: Token, complete: (written: number) => void): void {
    const status = this.#statusByte(chain);
    const finish = (code: number, transferred = 0): void => {
      if (token.dropped) return;
      this.memory.written(status, 1);
      this.memory.bytes()[status] = code;
      complete(transferred + 1);
    };
    if (totalLength(chain.readable) < HEADER_SIZE) return finish(S_IOERR);
    const header = new Uint8Array(HEADER_SIZE);
    gather(this.memory, chain.readable, header);
    const view = new DataView(header.buffer);
    const sector = view.getUint32(8, true) + view.getUint32(12, true) * 2 ** 32;
    const input = slice(chain.writable, 0, totalLength(chain.writable) - 1);
    const output = slice(chain.readable, HEADER_SIZE, MAX_REQUEST + 1);
    switch (view.getUint32(0, true)) {
      case T_IN: return this.#read(sector, input, token, finish);
      case T_OUT: return this.#write(sector, output, finish);
      case T_FLUSH: return this.#submit({ operation: "flush", offset: 0, length: 0, start: () => this.drive.storage.flush("guest") }, finish);
      case T_GET_ID: return this.#identify(input, finish);
      case T_DISCARD: return this.#ranges("discard", output, finish);
      case T_WRITE_ZEROES: return this.#ranges("zero", output, finish);
      default: return finish(S_UNSUPP);
    }
  }

  /** 5.2.6.2: without a flush to ask for, or with the cache turned off, a completed write has to be durable. */
  get #writeThrough(): boolean {
    if (this.accepted & F_CONFIG_WCE) return this.config[CONFIG_WRITEBACK] === 0;
    return (this.accepted & F_FLUSH) === 0;
  }

  #read(sector: number, input: readonly Segment[], token: Token, finish: Finish): void {
    const length = totalLength(input);
    if (!this.#inBounds(sector, length)) return finish(S_IOERR);
    const { drive } = this;
    const offset = sector * SECTOR;
    const buffer = drive.borrow(length);
    drive.submit({ operation: "read", offset, length, start: () => drive.storage.read(offset, buffer) }, () => {
      if (!token.dropped) scatter(this.memory, input, buffer);
      drive.giveBack(buffer);
      finish(S_OK, length);
    }, () => finish(S_IOERR));
  }

  #write(sector: number, output: readonly Segment[], finish: Finish): void {
    const length = totalLength(output);
    if (this.drive.readOnly || !this.#inBounds(sector, length)) return finish(S_IOERR);
    const { drive } = this;
    const offset = sector * SECTOR;
    const buffer = drive.borrow(length);
    gather(this.memory, output, buffer);
    const start = (): Pending => this.#thenDurable(drive.storage.write(offset, buffer));
    drive.submit({ operation: "write", offset, length, start }, () => {
      drive.giveBack(buffer);
      finish(S_OK);
    }, () => finish(S_IOERR));
  }

  #ranges(operation: "discard" | "zero", output: readonly Segment[], finish: Finish): void {
    const bytes = new Uint8Array(Math.min(totalLength(output), RANGE_SIZE * MAX_RANGES + 1));
    gather(this.memory, output, bytes);
    if (this.drive.readOnly || bytes.length === 0 || bytes.length % RANGE_SIZE !== 0) return finish(S_IOERR);
    const ranges = parseRanges(bytes);
    const allowed = operation === "zero" ? RANGE_F_UNMAP : 0;
    if (ranges.some(({ flags }) => (flags & ~allowed) !== 0)) return finish(S_UNSUPP);
    if (ranges.some(({ sector, count }) => count > MAX_RANGE_SECTORS || !this.drive.holds(sector, count))) return finish(S_IOERR);
    const { storage } = this.drive;
    const one = ({ sector, count, flags }: Range): Pending => operation === "discard"
      ? storage.discard(sector * SECTOR, count * SECTOR)
      : storage.zero(sector * SECTOR, count * SECTOR, (flags & RANGE_F_UNMAP) === 0);
    const start = (): Pending => this.#thenDurable(all(ranges.map(one)));
    const length = ranges.reduce((sum, { count }) => sum + count, 0) * SECTOR;
    this.#submit({ operation, offset: (ranges[0]?.sector ?? 0) * SECTOR, length, start }, finish);
  }

  #identify(input: readonly Segment[], finish: Finish): void {
    const id = new Uint8Array(ID_SIZE);
    new TextEncoder().encodeInto(this.serial, id);
    scatter(this.memory, input, id);
    finish(S_OK, Math.min(ID_SIZE, totalLength(input)));
  }

  #submit(request: DriveRequest, finish: Finish): void {
    this.drive.submit(request, () => finish(S_OK), () => finish(S_IOERR));
  }

  #thenDurable(written: Pending): Pending {
    return this.#writeThrough ? after(written, () => this.drive.storage.flush("guest")) : written;
  }

  #inBounds(sector: number, length: number): boolean {
    return length % SECTOR === 0 && length <= MAX_REQUEST && this.drive.holds(sector, length / SECTOR);
  }

  /** The last byte that the device may write. A driver that leaves none cannot be told anything. */
  #statusByte({ writable }: Chain): number {
    const last = writable.findLast(({ length }) => length > 0);
    if (!last) throw new QueueError("a request has no room for its status");
    return last.address + last.length - 1;
  }

  #describe(view: DataView): void {
    const { sectors } = this.drive;
    view.setUint32(0, sectors % 2 ** 32, true);
    view.setUint32(4, Math.floor(sectors / 2 ** 32), true);
    view.setUint32(8, SIZE_MAX, true);
    view.setUint32(12, SEG_MAX, true);
    view.setUint16(16, Math.max(1, Math.min(16383, Math.floor(sectors / (16 * 63)))), true);
    view.setUint8(18, 16);
    view.setUint8(19, 63);
    view.setUint32(20, SECTOR, true);
    view.setUint8(24, 3);
    view.setUint16(26, 8, true);
    view.setUint32(28, CLUSTER_SECTORS, true);
    view.setUint32(36, MAX_RANGE_SECTORS, true);
    view.setUint32(40, MAX_RANGES, true);
    view.setUint32(44, 8, true);
    view.setUint32(48, MAX_RANGE_SECTORS, true);
    view.setUint32(52, MAX_RANGES, true);
    view.setUint8(56, 1);
  }
}

type Finish = (status: number, transferred?: number) => void;

interface Range { readonly sector: number; readonly count: number; readonly flags: number }

function parseRanges(bytes: Uint8Array): Range[] {
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / RANGE_SIZE }, (_, index) => {
    const at = RANGE_SIZE * index;
    const sector = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32;
    return { sector, count: view.getUint32(at + 8, true), flags: view.getUint32(at + 12, true) };
  });
}
