import { DiskError } from "../disk/errors.ts";
import type { Storage } from "../disk/storage.ts";
import { type DiskBuffer, type CdBuffer } from "./v86-buffer.ts";
import type { FailurePolicy } from "./drive.ts";
import type { ScreenCanvas } from "./screen-surface.ts";
import { PCI_SLOTS } from "./v86-pci.ts";

export type Bytes = ArrayBuffer | Uint8Array;
export type Bus = "ide" | "virtio";
export type BootDevice = "disk" | "cdrom" | "floppy";

export interface DriveConfig {
  /** Stays the caller's: the machine flushes it, and never closes it. */
  readonly storage: Storage;
  /** IDE: any guest knows it; at most three disks of 2 TiB. virtio: twice as fast; eight disks of any size. */
  readonly bus: Bus;
  /** Refuses writes, whatever the storage can do. */
  readonly readOnly?: boolean | undefined;
  /** Names the layer whose contents the guest's RAM knows; a state is restored only over the same. */
  readonly identity?: string | (() => string) | undefined;
  /** What the guest reads as the disk's serial number (virtio; 20 characters). */
  readonly serial?: string | undefined;
}

/** A machine, in plain data. */
export interface MachineConfig {
  /** SeaBIOS and its VGA BIOS. */
  readonly bios: Bytes;
  readonly vgaBios: Bytes;
  /** v86's `v86.wasm`: its bytes, or already compiled, or its URL. In Node see `nodeWasm`. */
  readonly wasm: Bytes | WebAssembly.Module | string;
  /** RAM in MiB; 128 if not given. */
  readonly memory?: number | undefined;
  /** Video RAM in MiB; 8 if not given. */
  readonly videoMemory?: number | undefined;
  readonly drives?: readonly DriveConfig[] | undefined;
  /** The medium in the CD drive, which is always there. */
  readonly cdrom?: Storage | undefined;
  /** Boots this Linux kernel without a boot loader. */
  readonly kernel?: Bytes | undefined;
  readonly initrd?: Bytes | undefined;
  readonly cmdline?: string | undefined;
  readonly boot?: readonly BootDevice[] | undefined;
  readonly acpi?: boolean | undefined;
  /** No network if not given. */
  readonly network?: { readonly type: "ne2k" | "virtio"; readonly relayUrl?: string | undefined } | undefined;
  readonly screen?: {
    /** Painted at every frame. */
    readonly canvas?: ScreenCanvas | undefined;
    /** Node only: pictures of graphics modes too, which defines a global `ImageData` there. */
    readonly graphics?: boolean | undefined;
  } | undefined;
  /** Decides about a request that a storage failed; if not given the guest sees an I/O error. */
  readonly onDiskError?: FailurePolicy | undefined;
}

export const IDE_DRIVES = 3;
const MIB = 1 << 20;
const DEFAULT_MEMORY = 128;
const DEFAULT_VIDEO_MEMORY = 8;

/** CMOS codes of boot devices; the first is the lowest digit. */
const BOOT_CODES: Record<BootDevice, number> = { floppy: 1, disk: 2, cdrom: 3 };

export function checkConfig({ drives = [], memory = DEFAULT_MEMORY }: MachineConfig): void {
  const count = (bus: Bus): number => drives.filter((drive) => drive.bus === bus).length;
  if (count("ide") > IDE_DRIVES) throw invalid(`${count("ide")} IDE disks: at most ${IDE_DRIVES} fit beside the CD drive; use bus "virtio"`);
  if (count("virtio") > PCI_SLOTS) throw invalid(`${count("virtio")} virtio disks: at most ${PCI_SLOTS} fit`);
  if (!(memory >= 1 && memory <= 2047)) throw invalid(`${memory} MiB of memory: from 1 to 2047 are possible`);
}

function invalid(what: string): DiskError {
  return new DiskError("invalid-argument", what);
}

export function exactBuffer(bytes: Bytes): ArrayBuffer {
  return bytes instanceof Uint8Array ? new Uint8Array(bytes).buffer : bytes;
}

export async function compileWasm(wasm: MachineConfig["wasm"]): Promise<WebAssembly.Module> {
  if (wasm instanceof WebAssembly.Module) return wasm;
  if (typeof wasm !== "string") return await WebAssembly.compile(exactBuffer(wasm));
  const response = await fetch(wasm);
  if (!response.ok) throw new DiskError("not-found", `v86.wasm: the server answered ${response.status}`, { path: wasm });
  return await WebAssembly.compile(await response.arrayBuffer());
}

export interface Media { readonly hda: DiskBuffer | undefined; readonly hdb: DiskBuffer | undefined; readonly cdrom: CdBuffer | undefined }

/** Options for v86's constructor. Its types know nothing of custom buffers, `acpi` strings or a missing network. */
export function v86Options(config: MachineConfig, media: Media, module: WebAssembly.Module): Record<string, unknown> {
  const { network } = config;
  const image = (bytes: Bytes | undefined): { buffer: ArrayBuffer } | undefined => bytes && { buffer: exactBuffer(bytes) };
  return defined({
    wasm_fn: async (imports: WebAssembly.Imports) => (await WebAssembly.instantiate(module, imports)).exports,
    memory_size: (config.memory ?? DEFAULT_MEMORY) * MIB,
    vga_memory_size: (config.videoMemory ?? DEFAULT_VIDEO_MEMORY) * MIB,
    bios: image(config.bios),
    vga_bios: image(config.vgaBios),
    bzimage: image(config.kernel),
    initrd: image(config.initrd),
    cmdline: config.cmdline,
    ...media,
    boot_order: bootOrder(config),
    acpi: config.acpi ?? false,
    net_device: network ? { type: network.type, relay_url: network.relayUrl } : { type: "none" },
    fastboot: true,
    autostart: false,
    disable_keyboard: true,
    disable_mouse: true,
    disable_speaker: true,
  });
}

/** v86 takes a present but undefined option for a given one. */
function defined(options: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function bootOrder({ boot, drives = [] }: MachineConfig): number {
  const devices: readonly BootDevice[] = boot ?? (drives.length > 0 ? ["disk", "cdrom", "floppy"] : ["cdrom", "disk", "floppy"]);
  return devices.slice(0, 3).reduce((order, device, index) => order | (BOOT_CODES[device] << (4 * index)), 0);
}

/** What of a configuration the guest's RAM depends on; kept with each saved state. */
export interface MachineShape {
  readonly memory: number;
  readonly videoMemory: number;
  readonly acpi: boolean;
  readonly network: string;
}

export function shapeOf({ memory = DEFAULT_MEMORY, videoMemory = DEFAULT_VIDEO_MEMORY, acpi = false, network }: MachineConfig): MachineShape {
  return { memory, videoMemory, acpi, network: network?.type ?? "none" };
}
