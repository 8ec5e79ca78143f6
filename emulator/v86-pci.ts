/** Puts our own devices on v86's PCI bus. */
import type { Cpu } from "./v86-internals.ts";

/** A window of I/O ports. `width` is 1, 2 or 4 bytes. */
export interface IoBar {
  /** A power of two. */
  readonly size: number;
  read(offset: number, width: number): number;
  write(offset: number, width: number, value: number): void;
}

export interface PciFunction {
  readonly name: string;
  /** The type 0 header and what follows it: 256 bytes. Base addresses and the interrupt line are filled in later. */
  readonly configuration: Uint8Array;
  readonly bars: readonly IoBar[];
}

/** A level-triggered interrupt pin. */
export interface IrqLine { raise(): void; lower(): void }

/**
 * Slots that nothing in v86 uses. SeaBIOS routes pin A of slot n to interrupt 11 when (n - 1) mod 4 is 2 or 3, else
 * to 10: neighbours in this list alternate, so that two drives do not share; from the third on they do.
 */
const SLOTS = [15, 17, 19, 21, 23, 25, 27, 29];
export const PCI_SLOTS = SLOTS.length;

/** Where the windows stand until the BIOS moves them: above all of v86's own below its first bus master (0xA800). */
const FIRST_PORT = 0x9000;
const PORTS_PER_SLOT = 0x200;

const BASE_ADDRESS = 0x10;
const IO_SPACE = 1;

/**
 * The wires to v86's interrupt controller. There, one device's `lower` silences a line that another still holds, so
 * the others raise it again.
 */
export class PciHost {
  readonly #asserting = new Set<number>();
  #used = 0;

  constructor(readonly cpu: Cpu) {}

  attach(device: PciFunction): IrqLine {
    const slot = SLOTS[this.#used];
    if (slot === undefined) throw new RangeError(`no PCI slot is left for ${device.name}`);
    const id = slot << 3;
    const space = device.configuration.slice();
    const view = new DataView(space.buffer);
    let port = FIRST_PORT + PORTS_PER_SLOT * this.#used++;
    for (const [index, bar] of device.bars.entries()) {
      port = Math.ceil(port / bar.size) * bar.size;
      this.#register(device.name, port, bar);
      view.setUint32(BASE_ADDRESS + 4 * index, port | IO_SPACE, true);
      port += bar.size;
    }
    this.cpu.devices.pci.register_device({
      name: device.name, pci_id: id, pci_space: Array.from(space), pci_bars: device.bars.map(({ size }) => ({ size })),
    });
    return { raise: () => this.#raise(id), lower: () => this.#lower(id) };
  }

  #register(name: string, port: number, bar: IoBar): void {
    const owner = { name };
    for (let offset = 0; offset < bar.size; offset++) {
      this.cpu.io.register_read(port + offset, owner, () => bar.read(offset, 1) & 0xff, () => bar.read(offset, 2) & 0xffff, () => bar.read(offset, 4) | 0);
      this.cpu.io.register_write(port + offset, owner, (value) => bar.write(offset, 1, value & 0xff), (value) => bar.write(offset, 2, value & 0xffff), (value) => bar.write(offset, 4, value >>> 0));
    }
  }

  #raise(id: number): void {
    this.#asserting.add(id);
    this.cpu.devices.pci.raise_irq(id);
  }

  #lower(id: number): void {
    if (!this.#asserting.delete(id)) return;
    this.cpu.devices.pci.lower_irq(id);
    for (const other of this.#asserting) this.cpu.devices.pci.raise_irq(other);
  }
}
