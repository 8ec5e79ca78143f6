/** What the page and the worker say to each other besides Comlink's calls. */
import { type TransferHandler, transferHandlers } from "comlink";
import { DiskError, type DiskErrorContext, type DiskErrorKind } from "../disk/errors.ts";
import type { DriveOperation } from "./drive.ts";
import type { DriveConfig, MachineConfig } from "./machine-config.ts";
import type { ScreenMode } from "./screen.ts";

/** A drive whose disk the worker opens from a description `D`, which can be cloned. */
export interface WorkerDrive<D> extends Omit<DriveConfig, "storage" | "identity"> {
  readonly disk: D;
  readonly identity?: string | undefined;
}

export interface WorkerConfig<D> extends Omit<MachineConfig, "drives" | "cdrom" | "screen" | "onDiskError"> {
  readonly drives?: readonly WorkerDrive<D>[] | undefined;
  readonly cdrom?: D | undefined;
  readonly canvas?: OffscreenCanvas | undefined;
  /** A failed request waits until the page has decided on it (`decide`), and the machine is paused meanwhile. */
  readonly askOnDiskError?: boolean | undefined;
}

/** A failed request as the page hears of it. */
export interface WorkerDiskError {
  /** For `decide`, if the configuration asks. */
  readonly id: number;
  readonly drive: string;
  readonly operation: DriveOperation;
  readonly offset: number;
  readonly length: number;
  readonly kind: DiskErrorKind;
  readonly message: string;
}

export interface WorkerEvents {
  /** Some milliseconds' worth. */
  serial: Uint8Array<ArrayBuffer>;
  screen: ScreenMode;
  "disk-error": WorkerDiskError;
  started: void;
  stopped: void;
  halted: void;
}

export type WorkerMessage = { [Name in keyof WorkerEvents]: { readonly name: Name; readonly event: WorkerEvents[Name] } }[keyof WorkerEvents];

interface SerializedDiskError { readonly kind: DiskErrorKind; readonly what: string; readonly context: DiskErrorContext }
type Thrown = { readonly value: unknown };

/** Comlink carries only an error's name and message; a `DiskError` arrives as one. To be called on both sides. */
export function carryDiskErrors(): void {
  const plain = transferHandlers.get("throw") as TransferHandler<Thrown, unknown> | undefined;
  if (!plain || "carriesDiskErrors" in plain) return;
  const handler: TransferHandler<Thrown, unknown> & { carriesDiskErrors: true } = {
    carriesDiskErrors: true,
    canHandle: (value): value is Thrown => plain.canHandle(value),
    serialize: (thrown) => {
      const error = thrown.value;
      if (!(error instanceof DiskError)) return plain.serialize(thrown);
      const { kind, what, context } = error;
      return [{ diskError: { kind, what, context } satisfies SerializedDiskError }, []];
    },
    deserialize: (serialized) => {
      if (typeof serialized !== "object" || serialized === null || !("diskError" in serialized)) return plain.deserialize(serialized);
      const { kind, what, context } = serialized.diskError as SerializedDiskError;
      throw new DiskError(kind, what, context);
    },
  };
  transferHandlers.set("throw", handler);
}
