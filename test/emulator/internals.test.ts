import { expect, test } from "vitest";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { Machine, readStateHeader, V86_VERSION } from "../../emulator/index.ts";
import { packState, stateHeader, unpackState } from "../../emulator/machine-state.ts";
import { nodeWasm } from "../../emulator/node.ts";
import { IDE_MAX_SECTORS, IdeDisk } from "../../emulator/ide.ts";
import { Drive } from "../../emulator/drive.ts";
import { checkInternals, type AtaInterface } from "../../emulator/v86-internals.ts";
import { GuestDisk } from "../support/guest-disk.ts";
import { FakeMemory } from "./fake-driver.ts";

/** An object that has everything, down to any depth, but what `without` names. */
function completeV86(...without: string[]): object {
  const named = (names: readonly string[], value: unknown) => Object.fromEntries(names.map((name) => [name, value]));
  const nothing = (): void => {};
  const ata = {
    ...named(["ata_command", "ata_advance", "atapi_handle", "atapi_check_condition_response", "cancel_io_operations", "create_identify_packet",
      "data_set", "device_reset", "do_ata_read_sectors_dma", "do_ata_write_sectors_dma", "do_write", "get_count", "get_lba", "push_irq",
      "set_disk_buffer", "set_cdrom", "eject"], nothing),
    ...named(["status_reg", "error_reg", "features_reg", "sector_count_reg", "current_command", "data_length", "data_pointer", "data_end",
      "write_dest", "sector_count", "sectors_per_drq"], 0),
  };
  const channel = { master: ata, slave: ata, current_interface: ata, ...named(["command_base", "irq", "dma_command", "dma_status", "prdt_addr"], 0) };
  const devices = {
    pci: named(["register_device", "raise_irq", "lower_irq"], nothing), vga: { screen: {}, screen_fill_buffer: nothing },
    ide: { secondary: channel }, cdrom: ata, uart0: { input: {} },
  };
  const cpu = {
    devices, io: named(["register_read", "register_write"], nothing), mem8: new Uint8Array(1), memory_size: new Int32Array(1), wasm_memory: { buffer: new ArrayBuffer(1) },
    ...named(["jit_dirty_cache", "device_lower_irq", "get_state", "set_state", "reboot_internal"], nothing),
  };
  const emulator = { bus: { send: nothing }, screen_adapter: {}, v86: { cpu }, add_listener: nothing };
  for (const path of without) {
    const names = path.split(".");
    const last = names.pop() ?? "";
    const owner = names.reduce<unknown>((value, name) => Reflect.get(value as object, name), emulator);
    Reflect.deleteProperty(owner as object, last);
  }
  return emulator;
}

test("a v86 that has everything passes", () => {
  expect(() => checkInternals(completeV86())).not.toThrow();
});

test.each([["v86.cpu.io.register_read"], ["v86.cpu.devices.ide.secondary.master.do_write"], ["v86.cpu.devices.ide.secondary.dma_status"], ["v86.cpu.jit_dirty_cache"]])("one without %s is refused, and that is named", (path) => {
  expect(() => checkInternals(completeV86(path))).toThrow(expect.objectContaining({ name: "DiskError", kind: "unsupported", message: expect.stringContaining(`lacks ${path};`) }));
});

test("all that is missing is named in one error", () => {
  expect(() => checkInternals(completeV86("v86.cpu.get_state", "bus"))).toThrow("lacks bus, bus.send, v86.cpu.get_state; disk86 works with v86");
});

test("the version that we say we work with is the one that is installed", () => {
  const manifest = join(dirname(createRequire(import.meta.url).resolve("v86")), "../package.json");
  const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { version: string };
  expect(version.split("+")[0]).toBe(V86_VERSION);
});

const images = { bios: new Uint8Array(65536), vgaBios: new Uint8Array(65536) };
const small = (): MemoryStorage => new MemoryStorage(new Uint8Array(1 << 16));

test.each([
  ["four IDE disks", Array.from({ length: 4 }, () => ({ storage: small(), bus: "ide" as const })), /at most 3 fit beside the CD/],
  ["nine virtio disks", Array.from({ length: 9 }, () => ({ storage: small(), bus: "virtio" as const })), /at most 8 fit/],
  ["an empty storage", [{ storage: new MemoryStorage(), bus: "virtio" as const }], /an empty storage cannot be a drive/],
])("%s is refused with words", async (_name, drives, words) => {
  await expect(Machine.create({ ...images, wasm: await nodeWasm(), drives })).rejects.toThrow(words);
});

test("an IDE disk over 2 TiB is refused before v86 is even made, and virtio suggested", async () => {
  const huge = new GuestDisk(IDE_MAX_SECTORS * 512 + 1);
  expect(() => new IdeDisk(new Drive("ide0", huge), new FakeMemory(), {} as AtaInterface)).toThrow(/2 TiB\): use bus "virtio"/);
  await expect(Machine.create({ ...images, wasm: await nodeWasm(), memory: 16, drives: [{ storage: huge, bus: "ide" }] })).rejects.toThrow(/use bus "virtio"/);
});

const shape = { memory: 128, videoMemory: 8, acpi: false, network: "none" };
const drive = { name: "virtio0", size: 4096, readOnly: false, identity: "layer 1" };

test("a packed state comes back, and tells what it belongs to", () => {
  const state = new Uint8Array([1, 2, 3, 4]).buffer;
  const header = stateHeader(shape, [drive], null);
  const packed = packState(header, state);
  expect(readStateHeader(packed)).toEqual(header);
  expect(new Uint8Array(unpackState(packed, header))).toEqual(new Uint8Array(state));
});

test("a state over other disks or another machine is refused, with every difference", () => {
  const packed = packState(stateHeader(shape, [drive], null), new ArrayBuffer(4));
  const here = stateHeader({ ...shape, memory: 256 }, [{ ...drive, identity: "layer 2", size: 8192 }], 2048);
  expect(() => unpackState(packed, here)).toThrow("memory (MiB) was 128, here it is 256; size of the CD was null, here it is 2048; virtio0: size was 4096, here it is 8192; virtio0: disk layer was layer 1, here it is layer 2");
});

test.each([["empty", new Uint8Array(0)], ["foreign", new Uint8Array(100)], ["cut off", packState(stateHeader(shape, [], null), new ArrayBuffer(0)).subarray(0, 40)]])("a state that is %s is refused", (_name, bytes) => {
  expect(() => readStateHeader(bytes)).toThrow(expect.objectContaining({ name: "DiskError" }));
});
