import type { Failure } from "../model/failure.ts";
import type { Base, SaveState, Settings, Stage, Traffic } from "../model/machine.ts";

/** Describes a machine's disk to the worker that opens it. */
export interface DiskOrder {
  readonly title: string;
  readonly base: Base;
  /** For a base of files: these, in any order. */
  readonly files: readonly File[];
  /** Keeps nothing: the overlay is in memory. */
  readonly temporary: boolean;
  /** Kept for the next boot. */
  readonly settings: Settings;
}

/** What the disk of the machine that is on turned out to be. */
export interface DiskFacts {
  readonly id: string;
  readonly persistent: boolean;
  /** Kept changes were found and are in use. */
  readonly continued: boolean;
  readonly baseFile: string;
  readonly baseFormat: string;
}

/** What the worker tells beside the machine's own events. */
export type DiskEvent =
  | { readonly type: "stage"; readonly stage: Stage }
  | { readonly type: "save"; readonly save: SaveState }
  | { readonly type: "traffic"; readonly traffic: Traffic }
  /** Saving failed outside any request of the guest; it is tried again. */
  | { readonly type: "save-error"; readonly failure: Failure };

/** A file to download. `file` is a copy that nobody changes any more. */
export interface Exported { readonly file: Blob; readonly name: string; readonly baseFile: string; readonly baseFormat: string }
