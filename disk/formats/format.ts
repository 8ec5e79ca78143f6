import type { Gate } from "../gate.ts";
import type { Image } from "../image.ts";
import type { Storage } from "../storage.ts";
import type { Task } from "../task.ts";
import type { Amendment } from "./amendment.ts";
import type { CheckOptions, CheckResult } from "./check.ts";
import type { Creation } from "./creation.ts";
import type { FormatInfo } from "./info.ts";

/** Which internal snapshot: a text is an ID or, where none has that ID, a name; an object must agree in all that it gives. */
export type SnapshotChoice = string | { readonly id?: string | undefined; readonly name?: string | undefined };

export interface ImageOptions {
  /** Opened for reading only; nothing is written, not even a repair. */
  readonly readOnly: boolean;
  /** Opens the further files that hold the image's own data: extents, a data file. What it opens is the image's to close. */
  readonly gate: Gate;
  /** Bound of the image's resident metadata, in bytes. */
  readonly tableCache: number;
  /** The disk as it was in this internal snapshot, at its own size; for reading only. */
  readonly snapshot?: SnapshotChoice | undefined;
  /** Unlocks an encrypted image: the password. */
  readonly secret?: Uint8Array | undefined;
}

/** One image format: a folder under formats/ and a line in the registry. */
export interface Format {
  /** QEMU's name for it. */
  readonly name: string;
  /** Whether `head`, the first bytes of a file (up to 4 KiB), is of this format. Raw never says so: it is what is left. */
  probe(head: Uint8Array): boolean;
  /**
   * For a format whose magic is at the end, where a guest may write if the file is a raw disk: whether `tail`, the last bytes
   * (up to 4 KiB) of a file whose name ends in `suffix`, is of it.
   */
  readonly trailer?: { readonly suffix: string; probe(tail: Uint8Array): boolean };
  /** Opens one image, not its backing file. The image owns `storage` from then on; on a failure the caller keeps it. */
  open(storage: Storage, options: ImageOptions): Task<Image>;
  /** What the image says of itself, also where `open` would refuse it for a feature that we do not have. `gate`: as for `open`; without it no other file is looked at. */
  info(storage: Storage, gate?: Gate): Task<FormatInfo>;
  /** How an empty image is made; absent: this format is for reading only. */
  readonly creation?: Creation;
  /** What of an image can be changed later; absent: nothing. */
  readonly amendment?: Amendment;
  /** Looks for contradictions in the image, and mends them if asked; absent: the format has nothing to check. */
  check?(storage: Storage, options?: CheckOptions): Task<CheckResult>;
  /** Whether `open` can give the disk of an internal snapshot. */
  readonly snapshots?: true;
  /** `false`: the check only looks. */
  readonly repairs?: false;
}
