import { DiskError } from "./errors.ts";
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
}

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
