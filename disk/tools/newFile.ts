import { existsSync, renameSync, rmSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { DiskError } from "../errors.ts";
import { AnewStorage } from "../filters/anew.ts";
import type { NewFiles } from "../formats/creation.ts";
import type { Gate } from "../gate.ts";
import { isHttp, nodeGate, openForWriting, resolveName } from "../gate.node.ts";
import { isNbd } from "../names/nbd.ts";
import type { Storage } from "../storage.ts";
import { FileStorage } from "../storage/file.node.ts";
import { close, type Task } from "../task.ts";
import { runInterruptible } from "./interrupt.ts";

/**
 * Makes an image file, with such further files as `fill` asks for. New ones are made under other names and get their
 * own when all is complete. One that is there is overwritten in place, as qemu-img does: it may be a device, or have
 * other names, owners and rights. `background`: see `FileOptions`.
 */
export async function makeFile(name: string, fill: (into: Storage, files: NewFiles) => Task, background = false): Promise<void> {
  if (isNbd(name)) return await makeOnExport(name, fill);
  const file = resolveName(name, "");
  if (isHttp(file)) throw new DiskError("unsupported", "cannot be made on the web: make it here and upload it", { path: file });
  await runInterruptible(made(file, fill, background));
}

/** An export is there already, and keeps its size. */
async function makeOnExport(name: string, fill: (into: Storage, files: NewFiles) => Task): Promise<void> {
  const into = new AnewStorage(await openForWriting(name, true));
  await runInterruptible((function* filled(): Task {
    try {
      yield* fill(into, new FileSet(into.name));
    } finally {
      yield close(into);
    }
  })());
}

/** All within the task, so that no signal comes between the files and their names. */
function* made(file: string, fill: (into: Storage, files: NewFiles) => Task, background: boolean): Task {
  const files = new FileSet(file, background);
  try {
    const into = files.create(file);
    try {
      yield* fill(into, files);
    } finally {
      yield close(into);
    }
    files.publish();
  } catch (error) {
    files.drop();
    throw error;
  }
}

class FileSet implements NewFiles {
  readonly #gate = nodeGate();
  /** The names of files as they will be, and as they are now. */
  readonly #made = new Map<string, string>();

  constructor(readonly name: string, readonly background = false) {}

  create(name: string): Storage {
    const file = name === this.name ? name : resolveName(name, this.name);
    if (this.#made.has(file)) throw new DiskError("invalid-argument", `the image would have two files of this name`, { path: file });
    const now = existsSync(file) ? file : join(dirname(file), `.${basename(file)}.${process.pid}.new`);
    const storage = now === file ? FileStorage.open(file, { mode: "replace", background: this.background }) : openNew(now, file, this.background);
    this.#made.set(file, now);
    return storage;
  }

  open(name: string, from: Storage, readOnly?: boolean): ReturnType<Gate["open"]> {
    const now = this.#made.get(resolveName(name, this.name));
    if (now === undefined) return this.#gate.open(name, from, readOnly);
    return FileStorage.open(now, { mode: readOnly === false ? "write" : "read" });
  }

  /** The image itself, made first, gets its name last. */
  publish(): void {
    for (const [file, now] of [...this.#made].toReversed()) if (now !== file) renameSync(now, file);
  }

  drop(): void {
    for (const [file, now] of this.#made) if (now !== file) rmSync(now, { force: true });
  }
}

/** An error tells of the name that the user gave. */
function openNew(temporary: string, file: string, background: boolean): Storage {
  try {
    return FileStorage.open(temporary, { mode: "create", background });
  } catch (error) {
    throw error instanceof DiskError ? new DiskError(error.kind, error.what, { ...error.context, path: file }, error) : error;
  }
}
