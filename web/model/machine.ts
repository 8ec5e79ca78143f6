import type { Bus } from "../../emulator/index.ts";

/** What a machine was last booted with. */
export interface Settings {
  /** RAM in MiB. */
  readonly memory: number;
  readonly bus: Bus;
}

/** A picked file as it is recognised again after a reload. */
export interface FileIdentity { readonly name: string; readonly size: number }

/** What a machine's disk rests on, as it can be written down. */
export type Base =
  | { readonly kind: "guest"; readonly name: string; readonly url: string }
  | { readonly kind: "url"; readonly url: string }
  /** The image itself first, then the files of its backing chain. */
  | { readonly kind: "files"; readonly files: readonly FileIdentity[] };

/** What is kept of a machine beside its overlay: written once, before the overlay, and never changed. */
export interface MachineRecord {
  readonly version: 1;
  readonly id: string;
  readonly title: string;
  readonly base: Base;
  /** The base's name and format, as the overlay records them. */
  readonly baseFile: string;
  readonly baseFormat: string;
  /** Tells this base from every other one; see `fingerprint`. */
  readonly baseFingerprint: string;
  /** The guest's disk, in bytes. */
  readonly diskSize: number;
  /** When it was made, in ms since 1970. */
  readonly created: number;
}

/** A machine in this browser's storage. */
export interface KeptMachine {
  readonly record: MachineRecord;
  readonly settings: Settings;
  /** The overlay's size in bytes, and when it last changed. */
  readonly bytes: number;
  readonly changed: number;
  /** Another tab runs it. */
  readonly openElsewhere: boolean;
}

/** How safe the changes are. */
export type SaveState =
  /** In memory only: gone with the page. */
  | { readonly state: "temporary" }
  | { readonly state: "saving" }
  /** Everything the guest wrote was durable at `at` (ms since 1970). */
  | { readonly state: "saved"; readonly at: number };

/** What is being done before the guest runs. */
export type Stage = "emulator" | "base" | "overlay" | "starting";

/** What was fetched of a base on the web. */
export interface Traffic { readonly bytes: number; readonly requests: number; readonly size: number }
