import type { IoBar } from "./v86-pci.ts";

/** A register in a window of I/O ports; one without `write` ignores writes. */
export interface Register {
  readonly at: number;
  readonly width: 1 | 2 | 4;
  readonly read: () => number;
  readonly write?: (value: number) => void;
}

/** Bytes that show through from port `at` to the end of the window: the device's own configuration. */
interface ConfigWindow {
  readonly at: number;
  readonly bytes: Uint8Array;
  write(offset: number, value: number): void;
}

/** Virtio 1.1, 4.1.3.1: drivers use each register by its own width; narrower reads are served too. */
export function registerBar(size: number, registers: readonly Register[], config: ConfigWindow): IoBar {
  const byOffset = new Map<number, Register>();
  for (const register of registers) {
    for (let offset = register.at; offset < register.at + register.width; offset++) byOffset.set(offset, register);
  }
  return {
    size,
    read: (offset, width) => {
      if (offset >= config.at) return readConfig(config, offset - config.at, width);
      const register = byOffset.get(offset);
      return register ? register.read() >>> (8 * (offset - register.at)) : 0;
    },
    write: (offset, width, value) => {
      if (offset >= config.at) return writeConfig(config, offset - config.at, width, value);
      const register = byOffset.get(offset);
      if (register?.at === offset) register.write?.(value);
    },
  };
}

function readConfig({ bytes }: ConfigWindow, offset: number, width: number): number {
  let value = 0;
  for (let i = 0; i < width; i++) value |= (bytes[offset + i] ?? 0) << (8 * i);
  return value;
}

function writeConfig(config: ConfigWindow, offset: number, width: number, value: number): void {
  for (let i = 0; i < width; i++) config.write(offset + i, (value >>> (8 * i)) & 0xff);
}
