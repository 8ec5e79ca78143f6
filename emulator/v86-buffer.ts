import { type Drive, SECTOR } from "./drive.ts";
import type { AtaInterface, StateTree, V86Buffer } from "./v86-internals.ts";

/** A CD's sector. A request of more than this many bytes is a guest gone wrong. */
const CD_MAX_REQUEST = 32 << 20;

/** SCSI sense (SPC-3, 4.5.6): medium error, unrecovered read error; illegal request, address out of range. */
const MEDIUM_ERROR = { key: 3, additional: 0x11 };
const OUT_OF_RANGE = { key: 5, additional: 0x21 };
const BUS_MASTER_ACTIVE = 1;
const PACKET_COMMAND = 0xa0;
const BUSY = 0x80;

/** A hard disk as v86 wants it at start: a size, and the first sector for the geometry. `IdeDisk` does the rest. */
export class DiskBuffer implements V86Buffer {
  onload: ((event: unknown) => void) | undefined = undefined;
  #first: Uint8Array | undefined;

  constructor(readonly drive: Drive) {}

  get byteLength(): number {
    return this.drive.size;
  }

  load(): void {
    this.onload?.({});
  }

  /** Without a readable first sector v86 guesses the geometry from the size. */
  get_and_cache(_offset: number, _length: number, done: (bytes?: Uint8Array) => void): void {
    const first = new Uint8Array(SECTOR);
    this.drive.submit({ operation: "read", offset: 0, length: SECTOR, start: () => this.drive.storage.read(0, first) }, () => {
      this.#first = first;
      done(first);
    }, () => done());
  }

  get_from_cache(): Uint8Array | undefined {
    return this.#first;
  }

  get(): void {
    throw new Error("v86 read a hard disk behind disk86's back");
  }

  set(): void {
    throw new Error("v86 wrote a hard disk behind disk86's back");
  }

  get_state(): StateTree[] {
    return [];
  }

  set_state(): void {}
}

/** A CD in v86's drive, which executes the commands itself and asks for data here. It has no way to hear of errors. */
export class CdBuffer extends DiskBuffer {
  /** The drive that the CD is in, for errors. */
  drive_of: AtaInterface | undefined;

  override get(offset = 0, length = 0, done: (bytes: Uint8Array) => void = () => {}, { signal }: { signal?: AbortSignal } = {}): void {
    const fail = (sense: typeof MEDIUM_ERROR): void => {
      if (this.drive_of && signal?.aborted !== true) failPacket(this.drive_of, sense);
    };
    if (offset < 0 || length > CD_MAX_REQUEST) return fail(OUT_OF_RANGE);
    const { drive } = this;
    const buffer = drive.borrow(length);
    drive.submit({ operation: "read", offset, length, start: () => drive.storage.read(offset, buffer) }, () => {
      done(buffer);
      drive.giveBack(buffer);
    }, () => fail(MEDIUM_ERROR));
  }
}

/** Ends the packet command under way with CHECK CONDITION. */
function failPacket(ata: AtaInterface, { key, additional }: typeof MEDIUM_ERROR): void {
  ata.cancel_io_operations();
  ata.cancelled_io_ids.clear();
  ata.atapi_check_condition_response(key, additional);
  ata.channel.dma_status &= ~BUS_MASTER_ACTIVE;
  ata.push_irq();
}

/** After a restore: a packet command that was waiting for data is executed again from the drive's buffer. */
export function resumePacket(ata: AtaInterface): void {
  if (ata.current_command === PACKET_COMMAND && ata.status_reg & BUSY) ata.atapi_handle();
}
