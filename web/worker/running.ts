import { DiskError } from "../../disk/errors.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { type DriveFailure, type FailureVerdict, Machine } from "../../emulator/index.ts";
import { toFailure } from "../model/failure.ts";
import type { BootOrder, Exported, MachineEvent, OpenedMachine } from "./api.ts";
import { openBase, type OpenBase, refuseOtherFiles } from "./base.ts";
import { copyForDownload, writeSettings } from "./folder.ts";
import { machineId, overlayFileName } from "../model/names.ts";
import { lockMachine } from "./lock.ts";
import { keptOverlay, type OpenOverlay, temporaryOverlay } from "./overlay.ts";
import { Questions } from "./questions.ts";
import { SavedDisk } from "./saving.ts";

const TRAFFIC_EVERY = 400;
const BOOT_PATIENCE = 600_000;

/** A machine that is on, with all it holds open. */
export class RunningMachine {
  readonly #closers: (() => unknown)[] = [];
  readonly #questions = new Questions();
  #machine: Machine | undefined;
  #overlay: OpenOverlay | undefined;

  private constructor(readonly order: BootOrder) {}

  /** Opens base and overlay and switches on. If any of it fails everything is closed again. */
  static async boot(order: BootOrder): Promise<RunningMachine> {
    const running = new RunningMachine(order);
    try {
      await running.#boot();
      return running;
    } catch (error) {
      await running.#closeAll().catch(() => undefined);
      throw error;
    }
  }

  get opened(): OpenedMachine {
    const { record, continued } = this.#mustOverlay();
    const { id, baseFile, baseFormat, diskSize } = record;
    return { id, persistent: !this.order.temporary, continued, baseFile, baseFormat, diskSize };
  }

  get machine(): Machine {
    if (!this.#machine) throw new DiskError("invalid-argument", "the machine is off");
    return this.#machine;
  }

  flush(): Promise<void> {
    return Promise.resolve(this.#mustOverlay().disk.flush());
  }

  /** The guest goes on when the last question is answered. */
  answer(question: number, verdict: FailureVerdict): void {
    this.#questions.answer(question, verdict);
    if (this.#questions.size === 0) this.machine.resume();
  }

  async powerOff(): Promise<void> {
    this.#questions.answerAll("fail");
    await this.#closeAll();
  }

  /** The guest waits while the copy is made, so that it is of one moment. */
  async export(): Promise<Exported> {
    if (this.#questions.size > 0) throw new DiskError("io", "the disk waits for its base: answer that first, then download");
    const { file, record } = this.#mustOverlay(), { machine } = this, wasRunning = machine.running;
    const name = overlayFileName(record.baseFile);
    await machine.stop();
    try {
      const copy = file instanceof MemoryStorage ? new Blob([file.bytes.slice()]) : await copyForDownload(file, name);
      return { file: copy, name, baseFile: record.baseFile, baseFormat: record.baseFormat };
    } finally {
      if (wasRunning) machine.resume();
    }
  }

  async #boot(): Promise<void> {
    const { order } = this;
    this.#tell({ type: "stage", stage: "base" });
    const firmware = loadFirmware(order);
    // Its failure is told where it is awaited; until then something else may fail first.
    firmware.catch(() => undefined);
    if (order.base.kind === "files") refuseOtherFiles(order.base.files, order.files);
    const base = await openBase(order.base, order.files);
    this.#closers.push(() => base.storage.close());
    this.#watchTraffic(base);
    if (!order.temporary) {
      const lock = await lockMachine(machineId(base.base));
      this.#closers.push(() => lock.release());
    }
    this.#tell({ type: "stage", stage: "overlay" });
    const overlay = this.#overlay = order.temporary ? await temporaryOverlay(base, order.title) : await keptOverlay(base, order.title);
    const disk = new SavedDisk(overlay.disk, {
      onSave: (save) => this.#tell({ type: "save", save }),
      onFailure: (error) => this.#tell({ type: "save-error", failure: toFailure(error) }),
    }, !order.temporary);
    this.#closers.push(() => disk.close());
    if (!order.temporary) await writeSettings(overlay.record.id, order.settings);
    this.#tell({ type: "stage", stage: "emulator" });
    await this.#switchOn(disk, await firmware);
  }

  async #switchOn(disk: SavedDisk, [bios, vgaBios]: readonly [ArrayBuffer, ArrayBuffer]): Promise<void> {
    const { settings, wasm, canvas, prompt } = this.order;
    const machine = this.#machine = await Machine.create({
      bios, vgaBios, wasm, memory: settings.memory, drives: [{ storage: disk, bus: settings.bus }], screen: { canvas },
      onDiskError: (failure) => this.#decide(failure),
    });
    this.#closers.push(() => machine.destroy());
    machine.on("serial", (bytes) => this.order.events.postMessage({ type: "serial", bytes } satisfies MachineEvent, [bytes.buffer]));
    machine.on("screen", (mode) => this.#tell({ type: "screen", mode }));
    machine.on("started", () => this.#tell({ type: "running", running: true }));
    machine.on("stopped", () => this.#tell({ type: "running", running: false }));
    machine.on("halted", () => this.#tell({ type: "halted" }));
    this.#tell({ type: "screen", mode: machine.screen.mode });
    this.#tell({ type: "stage", stage: "starting" });
    const begin = performance.now();
    machine.start();
    if (prompt !== undefined) {
      machine.waitForSerial(prompt, BOOT_PATIENCE).then(() => this.#tell({ type: "ready", after: performance.now() - begin }), () => undefined);
    }
  }

  /** A base on the web or in a file may come back: the guest is held until someone says. Anything else is the guest's to handle. */
  #decide({ operation, error }: DriveFailure): FailureVerdict | Promise<FailureVerdict> {
    if (operation !== "read" || error.kind !== "io") {
      this.#tell({ type: "disk-error", failure: toFailure(error), question: undefined });
      return "fail";
    }
    const { number, answer } = this.#questions.ask();
    this.#tell({ type: "disk-error", failure: toFailure(error), question: number });
    void this.machine.pause();
    return answer;
  }

  #watchTraffic({ http }: OpenBase): void {
    if (!http) return;
    let told = -1;
    const tell = (): void => {
      const { bytes, requests } = http.traffic;
      if (bytes === told) return;
      told = bytes;
      this.#tell({ type: "traffic", traffic: { bytes, requests, size: http.size } });
    };
    tell();
    const timer = setInterval(tell, TRAFFIC_EVERY);
    this.#closers.push(() => clearInterval(timer));
  }

  /** In reverse: the machine, its disk, and then the lock and the base. Goes on after a failure, and then tells the first. */
  async #closeAll(): Promise<void> {
    const failures: unknown[] = [];
    const reversed = this.#closers.splice(0).reverse();
    for (const close of reversed) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    this.#machine = undefined;
    if (failures.length > 0) throw failures[0];
  }

  #mustOverlay(): OpenOverlay {
    if (!this.#overlay) throw new DiskError("invalid-argument", "the machine is off");
    return this.#overlay;
  }

  #tell(event: MachineEvent): void {
    this.order.events.postMessage(event);
  }
}

function loadFirmware({ bios }: BootOrder): Promise<[ArrayBuffer, ArrayBuffer]> {
  return Promise.all([load(bios.system), load(bios.vga)]);
}

async function load(url: string): Promise<ArrayBuffer> {
  const context = { path: url, operation: "load" };
  const advice = "build it with: bash guests/build.sh bios, and put guests/out beside the page as guests/";
  try {
    const response = await fetch(url);
    const type = response.headers.get("content-type") ?? "";
    if (!response.ok || type.startsWith("text/html")) throw new DiskError("not-found", `the machine's BIOS is not on this server: ${advice}`, context);
    return await response.arrayBuffer();
  } catch (error) {
    if (error instanceof DiskError) throw error;
    throw new DiskError("io", "the machine's BIOS could not be loaded: check the network", context, error);
  }
}
