import type { Storage } from "../../disk/storage.ts";
import { Drive } from "../../emulator/drive.ts";
import { IdeDisk } from "../../emulator/ide.ts";
import type { AtaChannel, AtaInterface } from "../../emulator/v86-internals.ts";
import { FakeMemory } from "./fake-driver.ts";

/** The register file that v86 keeps for a drive, with as much of its behaviour as `IdeDisk` leaves to it. */
class FakeAta {
  status_reg = 0x50;
  error_reg = 0;
  features_reg = 0;
  sector_count_reg = 0;
  lba = 0;
  current_command = -1;
  sectors_per_drq = 128;
  data = new Uint8Array(65536);
  data16 = new Uint16Array(this.data.buffer);
  data_length = 0;
  data_pointer = 0;
  data_end = 0;
  write_dest = 0;
  /** Commands that were left to v86. */
  passed: number[] = [];
  interrupts = 0;
  readonly channel = { dma_status: 0, dma_command: 0, prdt_addr: 0x100 } as unknown as AtaChannel;

  ata_command(code: number): void {
    this.passed.push(code);
    this.current_command = code;
    this.status_reg = 0x58;
  }
  create_identify_packet(): void {}
  device_reset(): void { this.status_reg = 0x51; }
  do_write(): void { throw new Error("v86 wrote by itself"); }
  do_ata_read_sectors_dma(): void { throw new Error("v86 read by itself"); }
  do_ata_write_sectors_dma(): void { throw new Error("v86 wrote by itself"); }
  push_irq(): void { this.interrupts++; }
  get_lba(): number { return this.lba; }
  get_count(): number { return this.sector_count_reg || 256; }
  ata_advance(_code: number, sectors: number): void { this.lba += sectors; }
  data_set(bytes: Uint8Array): void {
    if (this.data.length < bytes.length) this.data = new Uint8Array(bytes.length);
    this.data.set(bytes);
    this.data_length = bytes.length;
    this.data_pointer = 0;
  }
}

const RING = 0x100, BUFFER = 0x10000;

/** A guest's ATA driver for one disk, and all that it can see. */
export class FakeIde {
  readonly memory = new FakeMemory();
  readonly ata = new FakeAta();
  readonly drive: Drive;
  readonly disk: IdeDisk;

  constructor(storage: Storage, readOnly = false) {
    this.drive = new Drive("ide0", storage, readOnly);
    this.disk = new IdeDisk(this.drive, this.memory, this.ata as unknown as AtaInterface);
  }

  command(code: number, { lba = 0, count = 1, features = 0 } = {}): void {
    Object.assign(this.ata, { lba, sector_count_reg: count, features_reg: features });
    this.ata.ata_command(code);
  }

  /** One region of `bytes`; where the data goes to or comes from. */
  region(bytes: number, address = BUFFER): Uint8Array {
    this.table([address, bytes, true]);
    return this.memory.ram.subarray(address, address + bytes);
  }

  table(...regions: readonly [address: number, bytes: number, last?: boolean][]): void {
    const view = this.memory.view();
    for (const [index, [address, bytes, last = false]] of regions.entries()) {
      view.setUint32(RING + 8 * index, address, true);
      view.setUint16(RING + 8 * index + 4, bytes & 0xffff, true);
      view.setUint16(RING + 8 * index + 6, last ? 0x8000 : 0, true);
    }
  }

  get outcome(): { status: number; error: number; interrupts: number } {
    return { status: this.ata.status_reg, error: this.ata.error_reg, interrupts: this.ata.interrupts };
  }
}
