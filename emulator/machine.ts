import { V86 } from "v86";
import type { Storage } from "../disk/storage.ts";
import type { DriveFailure, DriveStatistics, FailureVerdict } from "./drive.ts";
import { Emitter } from "./events.ts";
import { keyStroke } from "./keyboard.ts";
import { checkConfig, compileWasm, type MachineConfig, shapeOf, v86Options } from "./machine-config.ts";
import { MachineDevices } from "./machine-devices.ts";
import { packState, type StateHeader, stateHeader, unpackState } from "./machine-state.ts";
import { Screen, type ScreenMode } from "./screen.ts";
import { type Pixels, provideImageData } from "./screen-surface.ts";
import { SerialPort } from "./serial.ts";
import { checkInternals, type V86Internals } from "./v86-internals.ts";

export interface MachineEvents {
  /** What the guest wrote to COM1 during one turn of the machine. */
  serial: Uint8Array<ArrayBuffer>;
  screen: ScreenMode;
  /** A storage failed a request; what the guest sees is up to `onDiskError`. */
  "disk-error": DriveFailure;
  started: void;
  stopped: void;
  /** The guest halted with interrupts off: it will do nothing more until a reset. */
  halted: void;
}

type Quiet = () => void | Promise<void>;

/** A PC in v86 with real disks: made stopped, by `Machine.create`. */
export class Machine {
  readonly screen: Screen;
  readonly serial: SerialPort;
  readonly #config: MachineConfig;
  readonly #devices: MachineDevices;
  readonly #events = new Emitter<MachineEvents>();
  readonly #emulator: V86;
  #internals: V86Internals | undefined;
  #running = false;
  #destroyed = false;

  /** Fails if a drive, the BIOS or v86 itself is not fit for use. */
  static async create(config: MachineConfig): Promise<Machine> {
    checkConfig(config);
    const module = await compileWasm(config.wasm);
    if (config.screen?.graphics) provideImageData();
    let machine: Machine | undefined;
    const devices = new MachineDevices(config.drives ?? [], config.cdrom, (failure) => machine?.decide(failure) ?? "fail");
    await devices.prepare();
    const made = (machine = new Machine(config, devices, module));
    await made.#ready();
    return made;
  }

  private constructor(config: MachineConfig, devices: MachineDevices, module: WebAssembly.Module) {
    this.#config = config;
    this.#devices = devices;
    this.screen = new Screen(config.screen?.canvas, (mode) => this.#events.emit("screen", mode));
    this.#emulator = new V86(v86Options(config, devices.media, module));
    this.serial = new SerialPort({
      send: (bytes) => this.#emulator.serial_send_bytes(0, bytes),
      unread: () => this.#internals?.v86.cpu.devices.uart0.input.length ?? 0,
    });
    this.serial.onOutput((bytes) => this.#events.emit("serial", bytes));
  }

  get running(): boolean {
    return this.#running;
  }

  /** Counters of each drive by name: `ide0`, `virtio0`, `cdrom`. */
  get statistics(): Record<string, Readonly<DriveStatistics>> {
    return Object.fromEntries(this.#devices.drives.map((drive) => [drive.name, drive.statistics]));
  }

  /** What a state saved now would belong to. */
  get header(): StateHeader {
    return stateHeader(shapeOf(this.#config), this.#devices.shapes, this.#devices.cdSize);
  }

  /** Calls `listener` at every such event until the function returned is called. */
  on<Name extends keyof MachineEvents>(name: Name, listener: (event: MachineEvents[Name]) => void): () => void {
    return this.#events.on(name, listener);
  }

  /** Switches on, or goes on after a pause. */
  start(): void {
    void this.#emulator.run();
  }

  resume(): void {
    this.start();
  }

  /** Holds the processor between two instructions. Requests under way go on. */
  async pause(): Promise<void> {
    await this.#emulator.stop();
  }

  /** Pauses, waits for the requests under way, and makes everything durable. */
  async stop(): Promise<void> {
    await this.quiesce();
    await this.#flush();
  }

  /** Pauses and waits until no request is with any storage. */
  async quiesce(): Promise<void> {
    await this.pause();
    await this.#devices.idle();
  }

  /** The reset button. The guest loses what it had not flushed from its own caches. */
  reset(): void {
    this.#emulator.restart();
  }

  /** Stops for good. Storages are flushed, and remain the caller's to close. */
  async destroy(): Promise<void> {
    if (this.#destroyed) return;
    this.#destroyed = true;
    try {
      await this.stop();
    } finally {
      await this.#emulator.destroy();
      this.screen.destroy();
      this.serial.close();
      this.#events.clear();
    }
  }

  /**
   * The whole machine as it is. `whileQuiet` runs when the disks are at rest and flushed: the moment for their
   * snapshot. A running machine goes on afterwards.
   */
  async save(whileQuiet: Quiet = () => {}): Promise<Uint8Array<ArrayBuffer>> {
    return await this.#quietly(async () => {
      await this.#flush();
      await whileQuiet();
      return packState(this.header, await this.#emulator.save_state());
    });
  }

  /**
   * Becomes the machine that was saved. `whileQuiet` runs first, when no request is under way: the moment to put the
   * disks back; they are compared with the state after it. A running machine goes on from there.
   */
  async restore(state: Uint8Array, whileQuiet: Quiet = () => {}): Promise<void> {
    await this.#quietly(async () => {
      await whileQuiet();
      await this.#emulator.restore_state(unpackState(state, this.header));
    });
  }

  /** The output up to and with a match, from where the last wait ended. */
  waitForSerial(pattern: string | RegExp, timeout?: number): Promise<string> {
    return this.serial.waitFor(pattern, timeout);
  }

  /** Types text on a US keyboard; characters it lacks are left out. `delay`: ms between keys, for slow readers. */
  async type(text: string, delay = 0): Promise<void> {
    for (const character of text.replaceAll("\r\n", "\n")) {
      this.sendScancodes(keyStroke(character));
      if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }

  /** Key scan codes of set 1, as the keyboard sends them; a pressed key is released by its code + 0x80. */
  sendScancodes(codes: readonly number[]): void {
    for (const code of codes) this.#internals?.bus.send("keyboard-code", code);
  }

  /** In dots of the guest's screen; down is positive. */
  moveMouse(dx: number, dy: number): void {
    this.#internals?.bus.send("mouse-delta", [dx, -dy]);
  }

  setMouseButtons(left: boolean, middle: boolean, right: boolean): void {
    this.#internals?.bus.send("mouse-click", [left, middle, right]);
  }

  turnMouseWheel(steps: number): void {
    this.#internals?.bus.send("mouse-wheel", [steps, 0]);
  }

  /** The rows of the text screen. */
  screenText(): string[] {
    return this.screen.text();
  }

  screenshot(): Pixels {
    return this.screen.screenshot();
  }

  insertCd(storage: Storage): void {
    this.#devices.insertCd(storage);
  }

  ejectCd(): void {
    this.#devices.ejectCd();
  }

  /** Tells of a failed request and asks the configuration what to do. */
  private decide(failure: DriveFailure): FailureVerdict | Promise<FailureVerdict> {
    this.#events.emit("disk-error", failure);
    return this.#config.onDiskError?.(failure) ?? "fail";
  }

  /** v86 has made its devices at "emulator-ready" and is complete at "emulator-loaded". */
  #ready(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#emulator.add_listener("emulator-ready", () => {
        try {
          this.#attach(checkInternals(this.#emulator));
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
          void this.#emulator.destroy();
        }
      });
      this.#emulator.add_listener("emulator-loaded", () => resolve());
    });
  }

  #attach(internals: V86Internals): void {
    this.#internals = internals;
    const { cpu } = internals.v86;
    this.#devices.attach(cpu);
    cpu.devices.vga.screen = this.screen;
    internals.screen_adapter = this.screen;
    this.screen.fill = () => cpu.devices.vga.screen_fill_buffer();
    const { serial } = this;
    this.#emulator.add_listener("serial0-output-byte", (byte) => serial.receive(byte));
    this.#emulator.add_listener("emulator-started", () => this.#setRunning(true));
    this.#emulator.add_listener("emulator-stopped", () => this.#setRunning(false));
    internals.add_listener("cpu-event-halt", () => this.#events.emit("halted", undefined));
  }

  #setRunning(running: boolean): void {
    if (running === this.#running) return;
    this.#running = running;
    this.#events.emit(running ? "started" : "stopped", undefined);
  }

  async #flush(): Promise<void> {
    for (const drive of this.#devices.disks) if (!drive.readOnly) await drive.storage.flush("machine");
  }

  async #quietly<T>(work: () => Promise<T>): Promise<T> {
    const wasRunning = this.#running;
    await this.quiesce();
    try {
      return await work();
    } finally {
      if (wasRunning) this.start();
    }
  }
}
