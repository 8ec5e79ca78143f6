import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { constants } from "node:os";
import { useNodeCodecs } from "../../disk/codecs/host.node.ts";
import { openForReading } from "../../disk/gate.node.ts";
import type { Storage } from "../../disk/storage.ts";
import { onlyFile, SHARED } from "../../disk/tools/arguments.ts";
import { formatSize, sizeArgument } from "../../disk/tools/sizes.ts";
import { type Call, CommandError, UsageError, type Verb } from "../../disk/tools/verb.ts";
import type { Guest } from "../../guests/catalog.ts";
import { type BootDevice, type Bus, Machine, type MachineConfig } from "../index.ts";
import { nodeWasm } from "../node.ts";
import { type BootDisk, type Changes, openBootDisk } from "./boot-disk.ts";
import { attachConsole, type Ending } from "./console.ts";
import { builtGuest, guestOf, readBios } from "./guest-images.ts";

const MIB = 2 ** 20;

export const boot: Verb = {
  usage: "[options] IMAGE|URL|GUEST",
  about: `Boots an image in v86; this terminal is its serial console (ttyS0). Ctrl-A x leaves, Ctrl-A h tells more. IMAGE is a file,
a URL, or one of the guests tiny and debian, which are built first if they are missing. The image is not written: changes
are temporary, in at most --temporary-size of memory, unless --overlay or --write says otherwise.
Where standard input is no terminal, its lines are typed: each when the guest has said --prompt (a guest's own is known).`,
  examples: [
    ["disk86 boot tiny", "the small guest; all changes are forgotten"],
    ["disk86 boot debian --overlay work.qcow2", "changes go to work.qcow2, which is made if it is missing"],
    ["disk86 boot https://example.org/disk.qcow2", "boot what a web server has, reading only what is needed"],
    ["disk86 boot --exec 'uname -a; sync' tiny", "type a command at the prompt, then leave"],
    ["disk86 boot --cdrom install.iso --boot-order cdrom,disk disk.qcow2 --write", "install a system"],
  ],
  options: [
    SHARED.format,
    { name: "overlay", value: "FILE", help: "keep changes in this qcow2 overlay on IMAGE" },
    { name: "temporary", help: "forget changes (the default)" },
    { name: "temporary-size", value: "SIZE", help: "memory for temporary changes (default: 1G)" },
    { name: "write", help: "write changes to IMAGE itself" },
    { name: "memory", short: "m", value: "MIB", help: "the machine's memory (default: 128)" },
    { name: "bus", value: "ide|virtio", help: "what the disk is connected to (default: ide; guests: virtio)" },
    { name: "cdrom", value: "FILE|URL", help: "put this into the CD drive" },
    { name: "boot-order", value: "DEVICES", help: "disk, cdrom, floppy in the order wanted, separated by commas" },
    { name: "kernel", value: "FILE", help: "boot this Linux kernel instead of a boot loader" },
    { name: "initrd", value: "FILE", help: "with this initial RAM disk" },
    { name: "cmdline", value: "TEXT", help: "and this command line" },
    { name: "bios", value: "FILE", help: "SeaBIOS (default: as built with the guests)" },
    { name: "vga-bios", value: "FILE", help: "its VGA BIOS" },
    { name: "network", value: "RELAY", help: "a network card, and the relay behind it: wss://..., or fetch" },
    { name: "no-network", help: "no network card (the default)" },
    { name: "exec", value: "TEXT", help: "type these lines at the prompt, then leave" },
    { name: "prompt", value: "TEXT", help: "what the guest says when it waits for a line" },
  ],
  run: runBoot,
};

async function runBoot(call: Call): Promise<number> {
  useNodeCodecs();
  const named = onlyFile(call), guest = guestOf(named), changes = changesOf(call);
  const settings = settingsOf(call, guest), prompt = call.value("prompt") ?? (guest?.shell === true ? guest.prompt : undefined);
  if (call.has("exec") && prompt === undefined) throw new UsageError("--exec needs --prompt: what the guest says when it waits for a line");
  const image = guest === undefined ? named : await builtGuest(guest, call.output);
  const bios = readBios(call.value("bios"), call.value("vga-bios"));
  const cdrom = call.value("cdrom"), medium = cdrom === undefined ? undefined : await openForReading(cdrom, true);
  const disk = await openBootDisk(image, call.value("format"), changes);
  call.output.error(`disk86: ${basename(image)}, ${formatSize(disk.disk.size)}; ${disk.before}${process.stdin.isTTY ? "; Ctrl-A x leaves, Ctrl-A h helps" : ""}\n`);
  const ending = await session(call, disk, { ...settings, ...bios, wasm: await nodeWasm(), cdrom: medium }, prompt);
  await medium?.close();
  call.output.error(`disk86: ${farewell(ending)}; ${disk.after}\n`);
  return ending === "SIGINT" || ending === "SIGTERM" || ending === "SIGHUP" ? 128 + constants.signals[ending] : 0;
}

const NEWLINE = 10;

type Settings = Omit<MachineConfig, "bios" | "vgaBios" | "wasm" | "cdrom"> & { readonly bus: Bus };

/** Runs the machine to its end. Its disk is flushed and closed however it ends. */
async function session(call: Call, { disk }: BootDisk, { bus, ...config }: Settings & { bios: Uint8Array; vgaBios: Uint8Array; wasm: WebAssembly.Module; cdrom: Storage | undefined }, prompt: string | undefined): Promise<Ending> {
  try {
    const machine = await Machine.create({ ...config, drives: [{ storage: disk, bus }] });
    machine.on("disk-error", ({ drive, operation, error }) => call.output.error(`\r\ndisk86: ${drive}: the guest's ${operation} failed: ${error.message}\r\n`));
    let last = NEWLINE;
    machine.on("serial", (bytes) => { last = bytes.at(-1) ?? last; });
    try {
      return await attachConsole(machine, { script: call.value("exec"), prompt });
    } finally {
      // A guest's prompt leaves the cursor in the middle of a line.
      if (last !== NEWLINE) call.output.error("\n");
      await machine.destroy();
    }
  } finally {
    await disk.close();
  }
}

function farewell(ending: Ending): string {
  switch (ending) {
    case "halted": return "the guest has halted";
    case "left": return "left";
    case "input ended": return "the input ended";
    case "SIGINT":
    case "SIGTERM":
    case "SIGHUP": return `stopped by ${ending}`;
  }
}

function changesOf(call: Call): Changes {
  const file = call.value("overlay"), chosen = ["overlay", "temporary", "write"].filter((name) => call.has(name));
  if (chosen.length > 1) throw new UsageError(`--${chosen.join(" and --")} exclude each other`);
  if (file !== undefined) return { to: "overlay", file };
  return call.has("write") ? { to: "image" } : { to: "memory", limit: sizeArgument(call.value("temporary-size") ?? "1G", "temporary size") };
}

function settingsOf(call: Call, guest: Guest | undefined): Settings {
  const file = (option: string): Uint8Array | undefined => {
    const path = call.value(option);
    return path === undefined ? undefined : readOrExplain(path, option);
  };
  const relay = call.value("network");
  if (relay !== undefined && call.has("no-network")) throw new UsageError("--network and --no-network exclude each other");
  return {
    memory: memoryOf(call.value("memory"), guest), bus: busOf(call.value("bus") ?? (guest === undefined ? "ide" : "virtio")), boot: bootOrderOf(call.value("boot-order")),
    kernel: file("kernel"), initrd: file("initrd"), cmdline: call.value("cmdline"), network: relay === undefined ? undefined : { type: "ne2k", relayUrl: relay },
  };
}

function memoryOf(text: string | undefined, guest: Guest | undefined): number | undefined {
  if (text === undefined) return guest?.memoryMiB.default;
  // A bare number is MiB, as QEMU's -m takes it.
  return /^\d+$/.test(text) ? Number(text) : sizeArgument(text, "memory size") / MIB;
}

function busOf(text: string): Bus {
  if (text !== "ide" && text !== "virtio") throw new UsageError(`no bus is called '${text}': ide and virtio are`);
  return text;
}

const DEVICES: readonly BootDevice[] = ["disk", "cdrom", "floppy"];

function bootOrderOf(text: string | undefined): BootDevice[] | undefined {
  return text?.split(",").map((word) => {
    const device = DEVICES.find((one) => one === word);
    if (device === undefined) throw new UsageError(`no boot device is called '${word}': ${DEVICES.join(", ")} are`);
    return device;
  });
}

function readOrExplain(path: string, option: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new CommandError(`--${option} ${path}: ${error instanceof Error ? error.message : String(error)}`, 1, { cause: error });
  }
}
