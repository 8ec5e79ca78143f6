import { renameSync, rmSync, statSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DiskError } from "../errors.ts";
import { isHttp } from "../gate.node.ts";
import type { Storage } from "../storage.ts";
import { FileStorage } from "../storage/file.node.ts";
import { close, type Task } from "../task.ts";
import { runInterruptible } from "./interrupt.ts";

/**
 * Makes an image file. A new one is made under another name and gets its own when it is complete. One that is there
 * is overwritten in place, as qemu-img does: it may be a device, or have other names, owners and rights.
 */
export async function makeFile(file: string, fill: (into: Storage) => Task): Promise<void> {
  if (isHttp(file)) throw new DiskError("unsupported", "cannot be made on the web: make it here and upload it", { path: file });
  const exists = statSync(file, { throwIfNoEntry: false }) !== undefined;
  await runInterruptible(exists ? filled(() => FileStorage.open(file, { mode: "replace" }), fill) : made(file, fill));
}

/** All within the task, so that no signal comes between the file and its name. */
function* made(file: string, fill: (into: Storage) => Task): Task {
  const temporary = join(dirname(file), `.${basename(file)}.${process.pid}.new`);
  try {
    yield* filled(() => openNew(temporary, file), fill);
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** An error tells of the name that the user gave. */
function openNew(temporary: string, file: string): Storage {
  try {
    return FileStorage.open(temporary, { mode: "create" });
  } catch (error) {
    throw error instanceof DiskError ? new DiskError(error.kind, error.what, { ...error.context, path: file }, error) : error;
  }
}

function* filled(open: () => Storage, fill: (into: Storage) => Task): Task {
  const storage = open();
  try {
    yield* fill(storage);
  } finally {
    yield close(storage);
  }
}
