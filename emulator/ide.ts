import { DiskError } from "../disk/errors.ts";
import { all, type Pending } from "../disk/storage.ts";
import {
  ATA, BUS_MASTER, describeDisk, DISABLE_WRITE_CACHE, ENABLE_WRITE_CACHE, ERROR, IDLE, LBA48, STATUS, TRIM_BLOCK, TRIM_MAX_BLOCKS, trimRanges,
} from "./ata.ts";
import { after, type Drive, SECTOR } from "./drive.ts";
import { gather, type GuestMemory, scatter, type Segment } from "./guest-memory.ts";
import { physicalRegions } from "./prdt.ts";
import { type AtaHandler, interceptAta } from "./v86-ata.ts";
import type { AtaInterface, StateTree } from "./v86-internals.ts";

/** v86 computes addresses of 32 bits. */
export const IDE_MAX_SECTORS = 2 ** 32;

/** What may be under way when a state is saved, so that it can be done again after a restore. */
const NOTHING = 0;
const PIO_READ = 1;
const PIO_WRITE = 2;
const DMA_READ = 3;
const DMA_WRITE = 4;
const FLUSH = 5;
type Activity = 0 | 1 | 2 | 3 | 4 | 5;

/**
 * A hard disk on v86's IDE. v86 keeps the registers and the port logic; every command that touches the disk is ours:
 * it completes, raises its interrupt or reports its error when the storage has answered, and not before. The guest
 * may have one command under way; what completes after a reset touches nothing.
 *
 * ATA has no read-only disks: writes to one are aborted. A guest that should know beforehand wants virtio.
 */
export class IdeDisk implements AtaHandler {
  #activity: Activity = NOTHING;
  #generation = 0;
  #writeCache = true;
  /** The DMA transfer that the guest will start brings the ranges of a TRIM. */
  #trim = false;

  constructor(readonly drive: Drive, readonly memory: GuestMemory, readonly ata: AtaInterface) {
    checkSize(drive);
    interceptAta(ata, this);
  }

  get busy(): boolean {
    return this.#activity !== NOTHING;
  }

  reset(): void {
    this.#generation++;
    this.#activity = NOTHING;
    this.#trim = false;
  }

  /** At power-on and machine reset the write cache is on again. */
  powerCycle(): void {
    this.#writeCache = true;
    this.ata.device_reset();
  }

  save(): StateTree {
    return [this.#activity, this.#writeCache, this.#trim];
  }

  restore(state: StateTree): void {
    const [activity, writeCache, trim] = state as [Activity, boolean, boolean];
    this.reset();
    this.#writeCache = writeCache;
    this.#trim = trim;
    switch (activity) {
      case NOTHING: return;
      case PIO_READ: return this.#pioRead(this.ata.current_command);
      case PIO_WRITE: return this.pioWrite();
      case DMA_READ: return this.dmaRead();
      case DMA_WRITE: return this.dmaWrite();
      case FLUSH: return this.#flush();
    }
  }

  identify(words: Uint16Array): void {
    describeDisk(words, { sectors: this.drive.sectors, writeCache: this.#writeCache, trim: !this.drive.readOnly });
  }

  command(code: number): boolean {
    // 6.2.3: while BSY is set, writes to the command register are ignored, but for a reset.
    if (this.busy && code !== ATA.DEVICE_RESET) return true;
    this.#trim = false;
    switch (code) {
      case ATA.READ_SECTORS: case ATA.READ_SECTORS_EXT: case ATA.READ_MULTIPLE: case ATA.READ_MULTIPLE_EXT:
        if (this.#accepts(code)) this.#pioRead(code);
        return true;
      case ATA.READ_DMA: case ATA.READ_DMA_EXT: case ATA.READ_VERIFY:
        return !this.#accepts(code);
      case ATA.READ_VERIFY_EXT:
        if (this.#accepts(code)) this.#succeed();
        return true;
      case ATA.WRITE_SECTORS: case ATA.WRITE_SECTORS_EXT: case ATA.WRITE_MULTIPLE: case ATA.WRITE_MULTIPLE_EXT:
      case ATA.WRITE_DMA: case ATA.WRITE_DMA_EXT:
        return !this.#accepts(code, true);
      case ATA.FLUSH_CACHE: case ATA.FLUSH_CACHE_EXT: case ATA.STANDBY_IMMEDIATE:
        this.#begin(code);
        this.#flush();
        return true;
      case ATA.DATA_SET_MANAGEMENT: this.#startTrim(); return true;
      case ATA.SET_FEATURES: return this.#setFeatures(this.ata.features_reg & 0xff);
      default: return false;
    }
  }

  #pioRead(code: number): void {
    const { ata } = this;
    const { offset, count } = this.#range(code);
    const single = code === ATA.READ_SECTORS || code === ATA.READ_SECTORS_EXT;
    this.#begin(code);
    this.#read(PIO_READ, offset, count, (bytes) => {
      ata.data_set(bytes);
      const sectors = Math.min(count, single ? 1 : ata.sectors_per_drq);
      ata.data_end = sectors * SECTOR;
      ata.ata_advance(code, sectors);
      this.ata.status_reg = IDLE | STATUS.DATA_REQUEST;
      this.ata.push_irq();
    });
  }

  dmaRead(): void {
    const { ata } = this;
    const { offset, count } = this.#range(ata.current_command);
    const segments = this.#transfer(count * SECTOR);
    if (!segments) return this.#fail(ERROR.ABORTED, true);
    this.#read(DMA_READ, offset, count, (bytes) => {
      scatter(this.memory, segments, bytes);
      this.#succeed(count);
    });
  }

  pioWrite(): void {
    const { ata } = this;
    const length = ata.data_length;
    const buffer = this.drive.borrow(length);
    buffer.set(ata.data.subarray(0, length));
    this.#write(PIO_WRITE, ata.write_dest, buffer, length / SECTOR);
  }

  dmaWrite(): void {
    const { offset, count } = this.#range(this.ata.current_command);
    const length = this.#trim ? this.#trimBlocks() * TRIM_BLOCK : count * SECTOR;
    const segments = this.#transfer(length);
    if (!segments) return this.#fail(ERROR.ABORTED, true);
    const buffer = this.drive.borrow(length);
    gather(this.memory, segments, buffer);
    if (this.#trim) this.#discard(buffer);
    else this.#write(DMA_WRITE, offset, buffer, count);
  }

  #read(activity: Activity, offset: number, count: number, deliver: (bytes: Uint8Array) => void): void {
    const { drive } = this;
    if (!drive.holds(offset / SECTOR, count)) return this.#fail(ERROR.ID_NOT_FOUND);
    const length = count * SECTOR;
    const buffer = drive.borrow(length);
    const live = this.#busyWith(activity);
    drive.submit({ operation: "read", offset, length, start: () => drive.storage.read(offset, buffer) }, () => {
      if (live()) deliver(buffer);
      drive.giveBack(buffer);
    }, () => {
      if (live()) this.#fail(ERROR.UNCORRECTABLE);
    });
  }

  #write(activity: Activity, offset: number, buffer: Uint8Array, count: number): void {
    const { drive } = this;
    if (drive.readOnly || !drive.holds(offset / SECTOR, count)) return this.#fail(ERROR.ID_NOT_FOUND);
    const start = (): Pending => this.#thenDurable(drive.storage.write(offset, buffer));
    const live = this.#busyWith(activity);
    drive.submit({ operation: "write", offset, length: buffer.length, start }, () => {
      drive.giveBack(buffer);
      if (live()) this.#succeed(count);
    }, () => {
      if (live()) this.#fail(ERROR.ABORTED);
    });
  }

  #flush(): void {
    const live = this.#busyWith(FLUSH);
    this.drive.submit({ operation: "flush", offset: 0, length: 0, start: () => this.drive.storage.flush("guest") }, () => {
      if (live()) this.#succeed();
    }, () => {
      if (live()) this.#fail(ERROR.ABORTED);
    });
  }

  /** To v86's bus master a TRIM is a DMA write of its list of ranges. */
  #startTrim(): void {
    const blocks = this.#trimBlocks();
    const isTrim = (this.ata.features_reg & 1) === 1;
    this.#begin(ATA.WRITE_DMA);
    if (this.drive.readOnly || !isTrim || blocks === 0 || blocks > TRIM_MAX_BLOCKS) return this.#fail(ERROR.ABORTED);
    this.#trim = true;
    this.ata.status_reg = IDLE | STATUS.DATA_REQUEST;
  }

  #discard(payload: Uint8Array): void {
    const { drive } = this;
    const ranges = trimRanges(payload);
    if (!ranges.every(({ sector, count }) => drive.holds(sector, count))) return this.#fail(ERROR.ID_NOT_FOUND);
    const start = (): Pending =>
      this.#thenDurable(all(ranges.map(({ sector, count }) => drive.storage.discard(sector * SECTOR, count * SECTOR))));
    const length = ranges.reduce((sum, { count }) => sum + count, 0) * SECTOR;
    const live = this.#busyWith(DMA_WRITE);
    drive.submit({ operation: "discard", offset: (ranges[0]?.sector ?? 0) * SECTOR, length, start }, () => {
      if (live()) this.#succeed();
    }, () => {
      if (live()) this.#fail(ERROR.ABORTED);
    });
  }

  #setFeatures(feature: number): boolean {
    if (feature === ENABLE_WRITE_CACHE) this.#writeCache = true;
    if (feature !== DISABLE_WRITE_CACHE) return false;
    this.#writeCache = false;
    this.#begin(ATA.SET_FEATURES);
    this.#flush();
    return true;
  }

  #thenDurable(written: Pending): Pending {
    return this.#writeCache ? written : after(written, () => this.drive.storage.flush("guest"));
  }

  /**
   * Whether a command's sectors are on the disk and may be accessed so; if not, the guest has been told. They are
   * checked again when a transfer starts: the guest may have changed the registers meanwhile.
   */
  #accepts(code: number, write = false): boolean {
    const { offset, count } = this.#range(code);
    if (write && this.drive.readOnly) {
      this.#begin(code);
      this.#fail(ERROR.ABORTED);
      return false;
    }
    if (this.drive.holds(offset / SECTOR, count)) return true;
    this.#begin(code);
    this.#fail(ERROR.ID_NOT_FOUND);
    return false;
  }

  #range(code: number): { offset: number; count: number } {
    const lba48 = LBA48.has(code);
    return { offset: this.ata.get_lba(lba48) * SECTOR, count: this.ata.get_count(lba48) };
  }

  #trimBlocks(): number {
    return this.ata.sector_count_reg & 0xffff;
  }

  #begin(code: number): void {
    this.ata.current_command = code;
    this.ata.error_reg = 0;
  }

  /** Sets BSY; the function returned says whether this command is still the one under way, and ends it. */
  #busyWith(activity: Activity): () => boolean {
    const generation = ++this.#generation;
    this.#activity = activity;
    this.ata.status_reg = IDLE | STATUS.BUSY;
    return () => {
      if (generation !== this.#generation) return false;
      this.#activity = NOTHING;
      return true;
    };
  }

  #succeed(sectors = 0): void {
    if (sectors > 0) this.ata.ata_advance(this.ata.current_command, sectors);
    this.#finish(IDLE, false);
  }

  #fail(error: number, busMasterFailed = false): void {
    this.ata.error_reg = error;
    this.#finish(IDLE | STATUS.ERROR, busMasterFailed);
  }

  #finish(status: number, busMasterFailed: boolean): void {
    const { ata } = this;
    this.#trim = false;
    ata.status_reg = status;
    ata.current_command = -1;
    ata.channel.dma_status &= ~BUS_MASTER.ACTIVE;
    if (busMasterFailed) ata.channel.dma_status |= BUS_MASTER.ERROR;
    ata.push_irq();
  }

  #transfer(length: number): Segment[] | undefined {
    return physicalRegions(this.memory, this.ata.channel.prdt_addr >>> 0, length);
  }
}

function checkSize(drive: Drive): void {
  if (drive.sectors <= IDE_MAX_SECTORS) return;
  throw new DiskError("unsupported", `${drive.size} bytes are more than an IDE disk of v86 can have (2 TiB): use bus "virtio"`, { path: drive.storage.name });
}
