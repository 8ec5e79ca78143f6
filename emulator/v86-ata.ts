/** The entry points of v86's IDE drives, led to a handler of ours. Its types, and the check that they hold, are in v86-internals.ts. */
import type { AtaChannel, AtaInterface, Cpu } from "./v86-internals.ts";

/** Takes over a hard disk's commands and data transfers from v86. */
export interface AtaHandler {
  /** The guest wrote the command register. `false`: v86 executes the command. */
  command(code: number): boolean;
  /** v86 has filled in the answer to IDENTIFY DEVICE: 256 words. */
  identify(words: Uint16Array): void;
  /** All data of a PIO write has arrived in the drive's buffer. */
  pioWrite(): void;
  /** The guest started the bus master for a read or write command. */
  dmaRead(): void;
  dmaWrite(): void;
  reset(): void;
}

const handlers = new WeakMap<AtaInterface, AtaHandler>();
const intercepted = new WeakSet<object>();

/** v86 seals its drives but not their prototype: that is changed once, and drives without a handler notice nothing. */
export function interceptAta(ata: AtaInterface, handler: AtaHandler): void {
  handlers.set(ata, handler);
  const prototype = Object.getPrototypeOf(ata) as AtaInterface;
  if (intercepted.has(prototype)) return;
  intercepted.add(prototype);
  wrap(prototype, "ata_command", (own, original, code) => {
    if (!own.command(code)) original();
  });
  wrap(prototype, "create_identify_packet", (own, original, _code, drive) => {
    original();
    own.identify(drive.data16);
  });
  wrap(prototype, "device_reset", (own, original) => {
    own.reset();
    original();
  });
  wrap(prototype, "do_write", (own) => own.pioWrite());
  wrap(prototype, "do_ata_read_sectors_dma", (own) => own.dmaRead());
  wrap(prototype, "do_ata_write_sectors_dma", (own) => own.dmaWrite());
}

type Wrapped = "ata_command" | "create_identify_packet" | "device_reset" | "do_write" | "do_ata_read_sectors_dma" | "do_ata_write_sectors_dma";

function wrap(
  prototype: AtaInterface, name: Wrapped,
  instead: (handler: AtaHandler, original: () => void, code: number, drive: AtaInterface) => void,
): void {
  const original: (this: AtaInterface, code: number) => void = prototype[name];
  Reflect.set(prototype, name, function replacement(this: AtaInterface, code: number): void {
    const handler = handlers.get(this);
    if (handler) instead(handler, () => original.call(this, code), code, this);
    else original.call(this, code);
  });
}

const COMMAND_REGISTER = 7;
/** ATA8-ACS 6.2: the error and device fault bits. */
const STATUS_ERRORS = 0x21;

/**
 * v86 lowers the interrupt line after a command was executed, which swallows the interrupt of one that completed at
 * once. A drive lowers it when the command arrives.
 */
export function orderCommandInterrupts(cpu: Cpu, channel: AtaChannel): void {
  cpu.io.register_write(channel.command_base + COMMAND_REGISTER, channel, (code) => {
    cpu.device_lower_irq(channel.irq);
    channel.current_interface.status_reg &= ~STATUS_ERRORS;
    channel.current_interface.ata_command(code);
  });
}
