/**
 * All that disk86 knows of v86 beyond its published interface: properties that survive in its release build, verified
 * with the version below. `checkInternals` runs before anything relies on them.
 */
import { DiskError } from "../disk/errors.ts";
import type { GuestMemory } from "./guest-memory.ts";

export const V86_VERSION = "0.5.462";

/** What a guest's port access calls. */
export type PortRead = () => number;
export type PortWrite = (value: number) => void;

/** v86's screen adapter: VGA calls it at every change. */
export interface ScreenAdapter {
  readonly FLAG_BLINKING: number;
  readonly FLAG_FONT_PAGE_B: number;
  put_char(row: number, column: number, character: number, flags: number, background: number, foreground: number): void;
  set_mode(graphical: boolean): void;
  set_size_text(columns: number, rows: number): void;
  set_size_graphical(width: number, height: number, virtualWidth: number, virtualHeight: number): void;
  set_font_bitmap(height: number, nineDots: boolean, double: boolean, copyEighth: boolean, plane2: Uint8Array, changed: boolean): void;
  set_font_page(a: number, b: number): void;
  set_scale(x: number, y: number): void;
  clear_text_state(): void;
  clear_screen(): void;
  update_cursor(row: number, column: number): void;
  update_cursor_scanline(start: number, end: number, visible: boolean): void;
  update_buffer(layers: readonly ScreenLayer[]): void;
  get_text_row(row: number): string;
  get_text_screen(): string[];
  pause(): void;
  continue(): void;
  destroy(): void;
}

/** A rectangle of the frame buffer (`buffer_*`), and where it stands on the screen. */
export interface ScreenLayer {
  readonly image_data: ImageData;
  readonly screen_x: number; readonly screen_y: number;
  readonly buffer_x: number; readonly buffer_y: number;
  readonly buffer_width: number; readonly buffer_height: number;
}

/** A disk as v86's controllers know it. Our hard disks bypass all but the size and the first sector. */
export interface V86Buffer {
  byteLength: number;
  onload: ((event: unknown) => void) | undefined;
  load(): void;
  get(offset: number, length: number, done: (bytes: Uint8Array) => void, options?: { signal?: AbortSignal }): void;
  set(offset: number, bytes: Uint8Array, done: () => void): void;
  get_and_cache(offset: number, length: number, done: (bytes?: Uint8Array) => void): void;
  get_from_cache(offset: number, length: number): Uint8Array | undefined;
  get_state(): StateTree[];
  set_state(state: StateTree[]): void;
}

/** v86's IDE drive: a register file, a data buffer, and methods that work on them. */
export interface AtaInterface {
  readonly channel: AtaChannel;
  readonly is_atapi: boolean;
  buffer: V86Buffer | null;
  drive_connected: boolean;
  sector_count: number;
  sectors_per_drq: number;
  status_reg: number;
  error_reg: number;
  features_reg: number;
  sector_count_reg: number;
  current_command: number;
  data: Uint8Array;
  data16: Uint16Array;
  data_length: number;
  data_pointer: number;
  data_end: number;
  write_dest: number;
  readonly cancelled_io_ids: Set<number>;
  ata_command(code: number): void;
  ata_advance(code: number, sectors: number): void;
  atapi_handle(): void;
  atapi_check_condition_response(key: number, additional: number): void;
  cancel_io_operations(): void;
  create_identify_packet(): void;
  data_set(bytes: Uint8Array): void;
  device_reset(): void;
  do_ata_read_sectors_dma(): void;
  do_ata_write_sectors_dma(): void;
  do_write(): void;
  get_count(lba48: boolean): number;
  get_lba(lba48: boolean): number;
  push_irq(): void;
  set_disk_buffer(buffer: V86Buffer): void;
  set_cdrom(buffer: V86Buffer): void;
  eject(): void;
}

export interface AtaChannel {
  readonly master: AtaInterface;
  readonly slave: AtaInterface;
  readonly current_interface: AtaInterface;
  readonly command_base: number;
  readonly irq: number;
  /** Bus master IDE: command and status registers, physical address of the PRD table. */
  dma_command: number;
  dma_status: number;
  prdt_addr: number;
}

/** A PCI function as v86's bus registers it. */
export interface V86PciDevice {
  readonly name: string;
  readonly pci_id: number;
  readonly pci_space: number[];
  readonly pci_bars: { readonly size: number }[];
}

interface PciBus {
  register_device(device: V86PciDevice): unknown;
  raise_irq(id: number): void;
  lower_irq(id: number): void;
}

interface Vga { screen: ScreenAdapter; graphical_mode: boolean; screen_fill_buffer(): void }

/** What v86 can serialise: its own state is a tree of these and of typed arrays. */
export type StateTree = number | string | boolean | null | StateTree[];

export interface Cpu {
  readonly devices: {
    readonly pci: PciBus;
    readonly vga: Vga;
    readonly ide: { readonly primary?: AtaChannel; readonly secondary: AtaChannel };
    readonly cdrom: AtaInterface;
    readonly uart0: { readonly input: { readonly length: number } };
  };
  readonly io: {
    register_read(port: number, device: object, read8?: PortRead, read16?: PortRead, read32?: PortRead): void;
    register_write(port: number, device: object, write8?: PortWrite, write16?: PortWrite, write32?: PortWrite): void;
  };
  readonly mem8: Uint8Array;
  readonly memory_size: Int32Array;
  readonly wasm_memory: WebAssembly.Memory;
  device_lower_irq(line: number): void;
  jit_dirty_cache(start: number, end: number): void;
  get_state(): unknown[];
  set_state(state: unknown[]): void;
  reboot_internal(): void;
}

export interface V86Internals {
  readonly bus: { send(event: string, value?: unknown): void };
  readonly v86: { readonly cpu: Cpu };
  screen_adapter: ScreenAdapter;
  add_listener(event: string, listener: () => void): void;
}

const OBJECTS = [
  "bus", "screen_adapter", "v86.cpu.io", "v86.cpu.devices.pci", "v86.cpu.devices.vga.screen", "v86.cpu.devices.ide.secondary.master",
  "v86.cpu.devices.ide.secondary.current_interface", "v86.cpu.devices.cdrom", "v86.cpu.mem8", "v86.cpu.memory_size", "v86.cpu.wasm_memory.buffer", "v86.cpu.devices.uart0.input",
];
const FUNCTIONS = [
  "bus.send", "add_listener", "v86.cpu.io.register_read", "v86.cpu.io.register_write", "v86.cpu.devices.pci.register_device",
  "v86.cpu.devices.pci.raise_irq", "v86.cpu.devices.pci.lower_irq", "v86.cpu.devices.vga.screen_fill_buffer",
  "v86.cpu.jit_dirty_cache", "v86.cpu.device_lower_irq", "v86.cpu.get_state", "v86.cpu.set_state", "v86.cpu.reboot_internal",
  ...[
    "ata_command", "ata_advance", "atapi_handle", "atapi_check_condition_response", "cancel_io_operations", "create_identify_packet",
    "data_set", "device_reset", "do_ata_read_sectors_dma", "do_ata_write_sectors_dma", "do_write", "get_count", "get_lba",
    "push_irq", "set_disk_buffer", "set_cdrom", "eject",
  ].map((method) => `v86.cpu.devices.ide.secondary.master.${method}`),
];
const NUMBERS = [
  ...["status_reg", "error_reg", "features_reg", "sector_count_reg", "current_command", "data_length", "data_pointer", "data_end",
    "write_dest", "sector_count", "sectors_per_drq"].map((name) => `v86.cpu.devices.ide.secondary.master.${name}`),
  ...["command_base", "irq", "dma_command", "dma_status", "prdt_addr"].map((name) => `v86.cpu.devices.ide.secondary.${name}`),
];

/** `emulator`, once everything this file describes was found in it; one error naming all that is missing otherwise. */
export function checkInternals(emulator: object): V86Internals {
  const missing = [
    ...OBJECTS.filter((path) => !isObject(at(emulator, path))),
    ...FUNCTIONS.filter((path) => typeof at(emulator, path) !== "function"),
    ...NUMBERS.filter((path) => typeof at(emulator, path) !== "number"),
  ];
  if (missing.length > 0) {
    throw new DiskError("unsupported",
      `this build of v86 lacks ${missing.join(", ")}; disk86 works with v86 ${V86_VERSION}: install that version`);
  }
  return emulator as V86Internals;
}

function at(root: object, path: string): unknown {
  let value: unknown = root;
  for (const name of path.split(".")) value = isObject(value) ? Reflect.get(value, name) : undefined;
  return value;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

/** The RAM of v86's guest. Its `mem8` is a slow proxy, so the views are our own, renewed when wasm memory has grown. */
export function guestMemory(cpu: Cpu): GuestMemory {
  const size = cpu.memory_size[0] ?? 0;
  const start = cpu.mem8.byteOffset;
  let bytes = new Uint8Array(cpu.wasm_memory.buffer, start, size);
  let view = new DataView(cpu.wasm_memory.buffer, start, size);
  const renew = (): void => {
    if (bytes.buffer === cpu.wasm_memory.buffer) return;
    bytes = new Uint8Array(cpu.wasm_memory.buffer, start, size);
    view = new DataView(cpu.wasm_memory.buffer, start, size);
  };
  return {
    size,
    bytes: () => (renew(), bytes),
    view: () => (renew(), view),
    written: (address, length) => {
      if (length > 0) cpu.jit_dirty_cache(address, address + length);
    },
  };
}

/** The slot in v86's own state array where ours travels: far beyond those that v86 uses (up to 91). */
const STATE_SLOT = 120;

export interface StateHooks {
  save(): StateTree;
  /** Called when v86 has restored RAM and devices; `undefined`: a state without our slot. */
  restore(state: StateTree | undefined): void;
  /** The machine is being reset by its keyboard controller, chipset or a triple fault, or by us. */
  reset(): void;
}

export function hookState(cpu: Cpu, hooks: StateHooks): void {
  const getState = cpu.get_state.bind(cpu);
  const setState = cpu.set_state.bind(cpu);
  const reboot = cpu.reboot_internal.bind(cpu);
  cpu.get_state = () => {
    const state = getState();
    state[STATE_SLOT] = hooks.save();
    return state;
  };
  cpu.set_state = (state) => {
    setState(state);
    hooks.restore((state[STATE_SLOT] ?? undefined) as StateTree | undefined);
  };
  cpu.reboot_internal = () => {
    hooks.reset();
    reboot();
  };
}
