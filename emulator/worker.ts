/**
 * The worker's side: machine and disks live together in it, so that what is resident is read without waiting. A
 * worker's own module extends `MachineWorker` by how it opens disks, and by what else the page may ask of them, and
 * gives it to `serveMachine`.
 */
import { expose, transfer } from "comlink";
import type { Storage } from "../disk/storage.ts";
import type { DriveFailure, DriveStatistics, FailureVerdict } from "./drive.ts";
import { Machine } from "./machine.ts";
import type { StateHeader } from "./machine-state.ts";
import type { Pixels } from "./screen-surface.ts";
import { carryDiskErrors, type WorkerConfig, type WorkerEvents } from "./worker-protocol.ts";

/** Serial output is sent at most this often, in ms. */
const SERIAL_INTERVAL = 5;

export abstract class MachineWorker<D> {
  protected machine: Machine | undefined;
  readonly #opened: Storage[] = [];
  readonly #undecided = new Map<number, (verdict: FailureVerdict) => void>();
  #failures = 0;
  #port: MessagePort | undefined;
  #serial: Uint8Array[] = [];

  /** The machine owns what is opened here and closes it in the end. */
  protected abstract open(disk: D): Storage | Promise<Storage>;

  /** Once. Events go to `port`. */
  async create(config: WorkerConfig<D>, port: MessagePort): Promise<void> {
    this.#port = port;
    const { drives = [], cdrom, canvas, askOnDiskError = false, ...plain } = config;
    try {
      const opened = [];
      for (const { disk, ...drive } of drives) opened.push({ ...drive, storage: await this.#open(disk) });
      const medium = cdrom === undefined ? undefined : await this.#open(cdrom);
      const machine = (this.machine = await Machine.create({
        ...plain, drives: opened, cdrom: medium, screen: { canvas },
        onDiskError: (failure) => this.#failed(failure, askOnDiskError),
      }));
      this.#forward(machine);
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  start(): void { this.#made.start(); }
  async pause(): Promise<void> { await this.#made.pause(); }
  async stop(): Promise<void> { await this.#made.stop(); }
  reset(): void { this.#made.reset(); }

  async destroy(): Promise<void> {
    for (const answer of this.#undecided.values()) answer("fail");
    this.#undecided.clear();
    try {
      await this.machine?.destroy();
    } finally {
      this.machine = undefined;
      await this.#close();
      this.#port?.close();
    }
  }

  async save(): Promise<Uint8Array<ArrayBuffer>> {
    const state = await this.#made.save();
    return transfer(state, [state.buffer]);
  }

  async restore(state: Uint8Array): Promise<void> { await this.#made.restore(state); }
  header(): StateHeader { return this.#made.header; }
  statistics(): Record<string, Readonly<DriveStatistics>> { return this.#made.statistics; }
  sendSerial(bytes: Uint8Array): void { this.#made.serial.send(bytes); }
  async type(text: string, delay?: number): Promise<void> { await this.#made.type(text, delay); }
  sendScancodes(codes: readonly number[]): void { this.#made.sendScancodes(codes); }
  moveMouse(dx: number, dy: number): void { this.#made.moveMouse(dx, dy); }
  setMouseButtons(left: boolean, middle: boolean, right: boolean): void { this.#made.setMouseButtons(left, middle, right); }
  turnMouseWheel(steps: number): void { this.#made.turnMouseWheel(steps); }
  screenText(): string[] { return this.#made.screenText(); }
  screenshot(): Pixels { return this.#made.screenshot(); }
  async insertCd(disk: D): Promise<void> { this.#made.insertCd(await this.#open(disk)); }
  ejectCd(): void { this.#made.ejectCd(); }

  /** Ends the wait of a failed request; the machine goes on when none waits any more. */
  decide(id: number, verdict: FailureVerdict): void {
    this.#undecided.get(id)?.(verdict);
    if (this.#undecided.delete(id) && this.#undecided.size === 0) this.machine?.start();
  }

  get #made(): Machine {
    if (!this.machine) throw new Error("no machine: create() one first");
    return this.machine;
  }

  async #open(disk: D): Promise<Storage> {
    const storage = await this.open(disk);
    this.#opened.push(storage);
    return storage;
  }

  async #close(): Promise<void> {
    for (const storage of this.#opened.splice(0)) await storage.close();
  }

  #forward(machine: Machine): void {
    machine.on("serial", (bytes) => this.#collect(bytes));
    machine.on("screen", (mode) => this.#emit("screen", mode));
    machine.on("started", () => this.#emit("started", undefined));
    machine.on("stopped", () => this.#emit("stopped", undefined));
    machine.on("halted", () => this.#emit("halted", undefined));
    this.#emit("screen", machine.screen.mode);
  }

  #failed({ drive, operation, offset, length, error }: DriveFailure, ask: boolean): FailureVerdict | Promise<FailureVerdict> {
    const id = ++this.#failures;
    this.#emit("disk-error", { id, drive, operation, offset, length, kind: error.kind, message: error.message });
    if (!ask) return "fail";
    void this.machine?.pause();
    return new Promise((resolve) => this.#undecided.set(id, resolve));
  }

  #collect(bytes: Uint8Array): void {
    this.#serial.push(bytes);
    if (this.#serial.length > 1) return;
    setTimeout(() => {
      const chunks = this.#serial.splice(0);
      const all = new Uint8Array(chunks.reduce((sum, { length }) => sum + length, 0));
      let at = 0;
      for (const chunk of chunks) {
        all.set(chunk, at);
        at += chunk.length;
      }
      this.#emit("serial", all, [all.buffer]);
    }, SERIAL_INTERVAL);
  }

  #emit<Name extends keyof WorkerEvents>(name: Name, event: WorkerEvents[Name], moved: Transferable[] = []): void {
    this.#port?.postMessage({ name, event }, moved);
  }
}

/** In the worker's own module: answers the page's `MachineClient`. */
export function serveMachine<D>(worker: MachineWorker<D>): void {
  carryDiskErrors();
  expose(worker);
}
