/** The page's side: a machine in a worker, as if it were here. */
import { type Remote, transfer, wrap } from "comlink";
import type { DriveStatistics, FailureVerdict } from "./drive.ts";
import { Emitter } from "./events.ts";
import type { StateHeader } from "./machine-state.ts";
import type { Pixels } from "./screen-surface.ts";
import { SerialReader } from "./serial-reader.ts";
import type { MachineWorker } from "./worker.ts";
import { carryDiskErrors, type WorkerConfig, type WorkerEvents, type WorkerMessage } from "./worker-protocol.ts";

export type { WorkerConfig, WorkerDiskError, WorkerDrive, WorkerEvents } from "./worker-protocol.ts";

export interface ClientConfig<D> extends Omit<WorkerConfig<D>, "canvas"> {
  /** Handed over to the worker, for good. */
  readonly canvas?: HTMLCanvasElement | OffscreenCanvas | undefined;
}

/** `W`: the worker's own class, whose further methods are at `remote`. */
export class MachineClient<D, W extends MachineWorker<D> = MachineWorker<D>> {
  readonly #events = new Emitter<WorkerEvents>();
  readonly #reader = new SerialReader();
  readonly #remote: Remote<MachineWorker<D>>;

  /** Makes the machine in `worker`, which serves a `MachineWorker<D>`. Fails as `Machine.create` and the opening of disks do. */
  static async create<D, W extends MachineWorker<D> = MachineWorker<D>>(worker: Worker, config: ClientConfig<D>): Promise<MachineClient<D, W>> {
    carryDiskErrors();
    const client = new MachineClient<D, W>(worker);
    await client.#create(config);
    return client;
  }

  private constructor(readonly worker: Worker) {
    this.#remote = wrap<MachineWorker<D>>(worker);
  }

  /** Everything the worker offers, as asynchronous calls. */
  get remote(): Remote<W> {
    return this.#remote as unknown as Remote<W>;
  }

  on<Name extends keyof WorkerEvents>(name: Name, listener: (event: WorkerEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  async start(): Promise<void> { await this.#remote.start(); }
  async pause(): Promise<void> { await this.#remote.pause(); }
  async resume(): Promise<void> { await this.#remote.start(); }
  async stop(): Promise<void> { await this.#remote.stop(); }
  async reset(): Promise<void> { await this.#remote.reset(); }
  async save(): Promise<Uint8Array<ArrayBuffer>> { return await this.#remote.save(); }
  async restore(state: Uint8Array): Promise<void> { await this.#remote.restore(state); }
  async header(): Promise<StateHeader> { return await this.#remote.header(); }
  async statistics(): Promise<Record<string, Readonly<DriveStatistics>>> { return await this.#remote.statistics(); }
  async screenText(): Promise<string[]> { return await this.#remote.screenText(); }
  async screenshot(): Promise<Pixels> { return await this.#remote.screenshot(); }
  async type(text: string, delay?: number): Promise<void> { await this.#remote.type(text, delay); }
  async sendScancodes(codes: readonly number[]): Promise<void> { await this.#remote.sendScancodes(codes); }
  async moveMouse(dx: number, dy: number): Promise<void> { await this.#remote.moveMouse(dx, dy); }
  async setMouseButtons(left: boolean, middle: boolean, right: boolean): Promise<void> { await this.#remote.setMouseButtons(left, middle, right); }
  async turnMouseWheel(steps: number): Promise<void> { await this.#remote.turnMouseWheel(steps); }
  async ejectCd(): Promise<void> { await this.#remote.ejectCd(); }
  async decide(id: number, verdict: FailureVerdict): Promise<void> { await this.#remote.decide(id, verdict); }

  async insertCd(disk: D): Promise<void> {
    // Comlink's types promise its arguments twice over; a description is plain data.
    await (this.#remote.insertCd as (disk: D) => Promise<void>)(disk);
  }

  /** Types into COM1: text as UTF-8. */
  async sendSerial(data: string | Uint8Array): Promise<void> {
    await this.#remote.sendSerial(typeof data === "string" ? new TextEncoder().encode(data) : data);
  }

  waitForSerial(pattern: string | RegExp, timeout?: number): Promise<string> {
    return this.#reader.waitFor(pattern, timeout);
  }

  /** Stops the machine, closes its disks, and ends the worker. */
  async destroy(): Promise<void> {
    try {
      await this.#remote.destroy();
    } finally {
      this.worker.terminate();
      this.#events.clear();
    }
  }

  async #create({ canvas, ...config }: ClientConfig<D>): Promise<void> {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }: MessageEvent<WorkerMessage>) => {
      if (data.name === "serial") this.#reader.append(data.event);
      this.#events.emit(data.name, data.event);
    };
    const screen = canvas && ("transferControlToOffscreen" in canvas ? canvas.transferControlToOffscreen() : canvas);
    const create = this.#remote.create as (config: WorkerConfig<D>, port: MessagePort) => Promise<void>;
    await create(transfer({ ...config, canvas: screen }, screen ? [screen] : []), transfer(port2, [port2]));
  }
}
