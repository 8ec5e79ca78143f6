import type { ScreenMode } from "../../emulator/index.ts";
import type { Failure } from "../model/failure.ts";
import type { Base, KeptMachine, SaveState, Settings, Stage, Traffic } from "../model/machine.ts";

/** Everything a machine needs to be switched on. */
export interface BootOrder {
  readonly title: string;
  readonly base: Base;
  /** For a base of files: these, the image first or in any order. */
  readonly files: readonly File[];
  readonly settings: Settings;
  /** Keeps nothing: the overlay is in memory. */
  readonly temporary: boolean;
  /** What the guest says on the serial port when it is ready, if known. */
  readonly prompt: string | undefined;
  readonly wasm: string;
  readonly bios: { readonly system: string; readonly vga: string };
  readonly canvas: OffscreenCanvas;
  /** Where `MachineEvent`s go. */
  readonly events: MessagePort;
}

/** What a machine tells the page; plain data, in order. */
export type MachineEvent =
  | { readonly type: "stage"; readonly stage: Stage }
  | { readonly type: "serial"; readonly bytes: Uint8Array<ArrayBuffer> }
  | { readonly type: "screen"; readonly mode: ScreenMode }
  | { readonly type: "save"; readonly save: SaveState }
  | { readonly type: "traffic"; readonly traffic: Traffic }
  /** The prompt came, so many ms after power-on. */
  | { readonly type: "ready"; readonly after: number }
  | { readonly type: "running"; readonly running: boolean }
  | { readonly type: "halted" }
  /** A disk request failed. With a `question` the guest waits until `answer` says whether to try again. */
  | { readonly type: "disk-error"; readonly failure: Failure; readonly question: number | undefined }
  /** Saving the changes failed outside any request of the guest. */
  | { readonly type: "save-error"; readonly failure: Failure };

/** A machine that runs. */
export interface OpenedMachine {
  readonly id: string;
  readonly persistent: boolean;
  /** Kept changes were found and are in use. */
  readonly continued: boolean;
  readonly baseFile: string;
  readonly baseFormat: string;
  readonly diskSize: number;
}

/** A file to download. `file` is a copy that nobody changes any more. */
export interface Exported { readonly file: Blob; readonly name: string; readonly baseFile: string; readonly baseFormat: string }

/** What runs in the worker: the kept machines, and at most one that is on. Every failure is a `DiskError`. */
export interface Station {
  /** Whether this browser lets the page keep anything. */
  canKeep(): Promise<boolean>;
  list(): Promise<KeptMachine[]>;
  boot(order: BootOrder): Promise<OpenedMachine>;
  sendSerial(bytes: Uint8Array): void;
  sendScancodes(codes: readonly number[]): void;
  typeText(text: string): Promise<void>;
  pause(): Promise<void>;
  resume(): void;
  reset(): void;
  /** Makes durable what the guest has written. */
  flush(): Promise<void>;
  answer(question: number, verdict: "retry" | "fail"): void;
  powerOff(): Promise<void>;
  /** The overlay, consistent, of the machine that is on or of one that is kept. */
  exportOverlay(id: string): Promise<Exported>;
  /** Deletes a kept machine; one that is on must be off first. */
  remove(id: string): Promise<void>;
}
