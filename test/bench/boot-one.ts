import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { V86 as V86Class } from "v86";
import { Machine, type Bus } from "../../emulator/index.ts";
import { nodeWasm } from "../../emulator/node.ts";
import { useNodeCodecs } from "../../disk/codecs/host.node.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { nodeGate } from "../../disk/gate.node.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { tiny } from "../../guests/catalog.ts";

const OUT = join(process.cwd(), "guests/out");
const bytes = (name: string): Uint8Array<ArrayBuffer> => new Uint8Array(readFileSync(join(OUT, name)));

/** Boots the tiny guest once, in this process, and prints as JSON how long it took and what memory it came to. */
export async function bootOne(how: string, raw: string): Promise<void> {
  const ms = how === "plain" ? await plain(raw) : await overlay(how === "virtio" ? "virtio" : "ide");
  console.log(JSON.stringify({ ms, rss: process.resourceUsage().maxRSS / 1024 }));
  process.exit(0);
}

/** v86 by itself: a raw image in memory, in its own buffer. */
async function plain(raw: string): Promise<number> {
  const { V86 } = (await import("v86")) as { V86: typeof V86Class };
  const module = await nodeWasm(), disk = new Uint8Array(readFileSync(raw));
  let output = "";
  const started = performance.now();
  return await new Promise((resolve) => {
    const options = {
      wasm_fn: async (imports: WebAssembly.Imports) => (await WebAssembly.instantiate(module, imports)).exports,
      memory_size: tiny.memoryMiB.default * 2 ** 20, vga_memory_size: 8 * 2 ** 20,
      bios: { buffer: bytes("bios/seabios.bin").buffer }, vga_bios: { buffer: bytes("bios/vgabios.bin").buffer },
      hda: { buffer: disk.buffer }, net_device: { type: "none" }, fastboot: true, autostart: true, disable_speaker: true, disable_mouse: true, acpi: false,
    };
    const emulator = new V86(options as unknown as ConstructorParameters<typeof V86>[0]);
    emulator.add_listener("serial0-output-byte", (byte: number) => {
      output += String.fromCharCode(byte);
      if (output.endsWith(tiny.prompt)) resolve(performance.now() - started);
    });
  });
}

/** The same guest from a qcow2 overlay in memory over the compressed qcow2 file. */
async function overlay(bus: Bus): Promise<number> {
  useNodeCodecs();
  const module = await nodeWasm();
  const bios = bytes("bios/seabios.bin"), vgaBios = bytes("bios/vgabios.bin");
  const started = performance.now();
  const gate = nodeGate({ lock: false }), file = new MemoryStorage(undefined, join(OUT, "bench-overlay.qcow2"));
  const base = await open(await gate.open(tiny.image, file), { format: "qcow2", readOnly: true });
  await run(createQcow2(file, { size: base.size, backingFile: tiny.image, backingFormat: "qcow2" }));
  await base.close();
  const disk = await open(file, { format: "qcow2", gate });
  const machine = await Machine.create({ bios, vgaBios, wasm: module, memory: tiny.memoryMiB.default, drives: [{ storage: disk, bus }] });
  const prompt = machine.waitForSerial(tiny.prompt, 120_000);
  machine.start();
  await prompt;
  return performance.now() - started;
}
