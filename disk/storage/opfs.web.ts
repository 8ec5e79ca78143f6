import { DiskError, type DiskErrorContext, type DiskErrorKind } from "../errors.ts";
import type { Storage } from "../storage.ts";

/** What we use of FileSystemSyncAccessHandle, which TypeScript's DOM library knows only for workers. Counts and offsets in bytes. */
export interface SyncHandle {
  read(into: Uint8Array, options: { at: number }): number;
  write(from: Uint8Array, options: { at: number }): number;
  truncate(size: number): void;
  getSize(): number;
  flush(): void;
  close(): void;
}

interface SyncCapable {
  createSyncAccessHandle?(options?: { mode: "readwrite" | "read-only" }): Promise<SyncHandle>;
}

/**
 * `read`: read-only, beside other readers. `write`: both, alone. `create`: a new file, refused as `exists` if there
 * is one. `replace`: a new file, or an existing one emptied.
 */
export type OpfsMode = "read" | "write" | "create" | "replace";

const ZEROS = 1 << 20;

/**
 * A file of the origin private file system, synchronous; in dedicated workers only. The browser locks it: what is
 * open for writing here cannot be opened in another tab. No holes: `zero` writes zeros, `discard` does nothing.
 * Chromium's incognito mode fails without throwing, so no count and no size is taken on trust.
 */
export class OpfsStorage implements Storage {
  #size: number;
  #open = true;

  /** `handle` becomes the storage's own. */
  constructor(private readonly handle: SyncHandle, readonly name: string, readonly readOnly = false) {
    this.#size = handle.getSize();
  }

  /**
   * Opens `path` ("machines/one/disk.qcow2") below the origin's root; folders are made where the file is. Rejects
   * with `DiskError`: `locked`, `not-found`, `exists`, `no-space`, `unsupported` outside dedicated workers, `io`.
   */
  static async open(path: string, mode: OpfsMode = "read"): Promise<OpfsStorage> {
    const context = { path, operation: "open" };
    try {
      const file = await findFile(path, mode, context);
      if (!file.createSyncAccessHandle) throw new DiskError("unsupported", "this browser offers fast files in dedicated workers only: open it there", context);
      const handle = await file.createSyncAccessHandle({ mode: mode === "read" ? "read-only" : "readwrite" });
      try {
        const storage = new OpfsStorage(handle, path, mode === "read");
        if (mode === "replace") storage.truncate(0);
        return storage;
      } catch (error) {
        handle.close();
        throw error;
      }
    } catch (error) {
      throw opfsError(error, context);
    }
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, into: Uint8Array): void {
    const inside = Math.max(0, Math.min(into.length, this.#size - offset));
    let done = 0;
    while (done < inside) {
      const count = this.#call("read", offset + done, () => this.handle.read(into.subarray(done, inside), { at: offset + done }));
      if (!(count > 0)) throw new DiskError("io", "the browser lost a part of the file: it may have been cleared with the site's data", this.#context("read", offset + done));
      done += count;
    }
    if (inside < into.length) into.fill(0, inside);
  }

  write(offset: number, from: Uint8Array): void {
    this.#mayWrite("write", offset);
    let done = 0;
    try {
      while (done < from.length) {
        const count = this.#call("write", offset + done, () => this.handle.write(from.subarray(done), { at: offset + done }));
        if (!(count > 0)) throw noSpace(this.#context("write", offset + done));
        done += count;
      }
    } finally {
      if (this.#open) this.#size = Math.max(this.#size, offset + done);
    }
  }

  zero(offset: number, length: number): void {
    this.#mayWrite("zero", offset);
    const end = Math.min(offset + length, this.#size);
    const zeros = new Uint8Array(Math.max(0, Math.min(end - offset, ZEROS)));
    for (let at = offset; at < end; at += zeros.length) this.write(at, zeros.subarray(0, end - at));
  }

  discard(offset: number): void {
    this.#mayWrite("discard", offset);
  }

  truncate(size: number): void {
    this.#mayWrite("truncate", size);
    this.#call("truncate", size, () => this.handle.truncate(size));
    this.#size = this.#call("truncate", size, () => this.handle.getSize());
    if (this.#size !== size) throw noSpace(this.#context("truncate", size));
  }

  flush(): void {
    if (!this.readOnly) this.#call("flush", undefined, () => this.handle.flush());
  }

  /** Closing twice does nothing more. */
  close(): void {
    this.#open = false;
    this.handle.close();
  }

  #call<T>(operation: string, offset: number | undefined, action: () => T): T {
    if (!this.#open) throw new DiskError("io", "is closed already: open it again", this.#context(operation, offset));
    try {
      return action();
    } catch (error) {
      throw opfsError(error, this.#context(operation, offset));
    }
  }

  #mayWrite(operation: string, offset: number): void {
    if (this.readOnly) throw new DiskError("read-only", "was opened read-only: open it for writing to change it", this.#context(operation, offset));
  }

  #context(operation: string, offset?: number): DiskErrorContext {
    return { path: this.name, offset, operation };
  }
}

async function findFile(path: string, mode: OpfsMode, context: DiskErrorContext): Promise<SyncCapable> {
  const names = path.split("/").filter((name) => name !== "");
  const last = names.pop();
  if (last === undefined) throw new DiskError("invalid-argument", "a file needs a name", context);
  const making = mode === "create" || mode === "replace";
  let folder = await navigator.storage.getDirectory();
  for (const name of names) folder = await folder.getDirectoryHandle(name, { create: making });
  if (mode === "create" && (await exists(folder, last))) throw new DiskError("exists", "already exists: choose another name, or remove it first", context);
  return (await folder.getFileHandle(last, { create: making })) as SyncCapable;
}

async function exists(folder: FileSystemDirectoryHandle, name: string): Promise<boolean> {
  try {
    await folder.getFileHandle(name);
    return true;
  } catch (error) {
    if (error instanceof Error && error.name === "NotFoundError") return false;
    throw error;
  }
}

function noSpace(context: DiskErrorContext, cause?: unknown): DiskError {
  return new DiskError("no-space", "the browser's storage for this site is full: export or delete something, or free space on the device", context, cause);
}

/** Held by another tab and not there at all are two things: whoever takes the first for the second starts a blank disk. */
const MEANINGS: Readonly<Record<string, readonly [DiskErrorKind, string]>> = {
  NoModificationAllowedError: ["locked", "is open in another tab or worker: close it there, or use an overlay of your own"],
  NotFoundError: ["not-found", "is not in this browser's storage: it was never saved here, or the site's data was cleared"],
  TypeMismatchError: ["invalid-argument", "is a folder, not a file: name a file inside"],
  TypeError: ["invalid-argument", "is no name the browser allows: use letters, digits, dots and dashes"],
  SecurityError: ["unsupported", "the browser denies this page its storage: allow site data, or leave private browsing"],
};

function opfsError(error: unknown, context: DiskErrorContext): unknown {
  if (error instanceof DiskError) return error;
  const name = error instanceof Error || error instanceof DOMException ? error.name : "";
  if (name === "QuotaExceededError") return noSpace(context, error);
  const meaning = MEANINGS[name];
  if (meaning && (context.operation === "open" || name !== "TypeError")) return new DiskError(meaning[0], meaning[1], context, error);
  const detail = error instanceof Error ? error.message : String(error);
  return new DiskError("io", `the browser's storage failed (${name || "unknown"}: ${detail}): try again`, context, error);
}
