import { DiskError } from "./errors.ts";
import type { BackingReference } from "./image.ts";
import type { Storage } from "./storage.ts";

/**
 * Opens the files that images name. The caller decides what a name may reach: an image may be hostile, and this is
 * its only way to anything outside itself.
 */
export interface Gate {
  /**
   * Opens `name` as the image in `from` names it: relative names are relative to `from.name`. For reading; where
   * `readOnly` is false (a data file, an extent), for writing too. Refuses with a `DiskError` that says what to do.
   * The caller closes what it gets.
   */
  open(name: string, from: Storage, readOnly?: boolean): Storage | Promise<Storage>;
  /**
   * As `open`, for a backing file: some names tell more than where bytes are (`json:{...}`). `format` is the one that
   * the image records. Absent: no name does.
   */
  image?(name: string, from: Storage, format: string | undefined, readOnly?: boolean): NamedImage | Promise<NamedImage>;
}

/** An image as a name led to it. Who opened it closes the storage. */
export interface NamedImage {
  readonly storage: Storage;
  /** Not given: nobody said. */
  readonly format: string | undefined;
  readonly backing?: BackingChoice | undefined;
  /** Unlocks an encrypted image: the password. */
  readonly secret?: Uint8Array | undefined;
  /** What to call it, where the storage's name does not tell all. */
  readonly title?: string | undefined;
}

/** What an image stands on in place of the file that it names: nothing, or what this opens; for reading unless told otherwise. */
export type BackingChoice = false | ((named: BackingReference | undefined, readOnly?: boolean) => NamedImage | Promise<NamedImage>);

/** For images that stand alone: every name is refused. */
export const NO_GATE: Gate = {
  open(name, from) {
    throw new DiskError("not-found", `the image needs the file '${name}', and was opened without leave to open others`, { path: from.name });
  },
};

/** For images whose format is only a guess. */
export const GUESSED_GATE: Gate = {
  open(name, from) {
    throw new DiskError("unsupported", `it names the file '${name}', but that it is an image at all is only a guess: a guest may have written that; record its format with qemu-img rebase -u -F on the image above, if you trust it`, { path: from.name });
  },
};
