import {
  closeSync, constants, fdatasyncSync, fstatSync, fsyncSync, ftruncateSync, openSync, readFileSync, readSync, type Stats, write, writeSync,
} from "node:fs";
import { promisify } from "node:util";
import { DiskError, type DiskErrorContext } from "../errors.ts";
import type { Pending, Storage } from "../storage.ts";
import { fileError, systemError } from "./fileErrors.node.ts";
import { FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE, libc, SEEK_DATA, SEEK_HOLE } from "./libc.node.ts";
import { lockFile } from "./locks.node.ts";
import type { Sparse, SparseExtent } from "./sparse.ts";

/**
 * `read`: read-only. `write`: both. `create`: a new file, refused as `exists` if there is one. `replace`: a new
 * file, or an existing one emptied - after its lock was taken.
 */
export type FileMode = "read" | "write" | "create" | "replace";

export interface FileOptions {
  /** Default `read`. */
  readonly mode?: FileMode;
  /**
   * `false`: neither take nor respect locks, as QEMU's --force-share does. Default `true`, for readers too, since an
   * image that somebody writes reads torn; see `lockFile`. It loads koffi, 6-10 ms once: a command that only shows a
   * header may rather do without.
   */
  readonly lock?: boolean;
  /** Large writes are made on a thread of Node's pool, and answered later: who copies can read meanwhile. Default: at once. */
  readonly background?: boolean;
}

const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = constants;
/** So that opening a FIFO returns and can be refused; it means nothing to files. Windows has none. */
const O_NONBLOCK = constants.O_NONBLOCK ?? 0;
const FLAGS: Record<FileMode, number> = { read: O_RDONLY, write: O_RDWR, create: O_RDWR | O_CREAT | O_EXCL, replace: O_RDWR | O_CREAT };
const ZEROS = 1 << 20;
/** Less is written before a thread would have begun, in bytes. */
const WORTH_A_THREAD = 128 << 10;
const writeOnThread = promisify(write);

/**
 * A file or Linux block device, synchronous. Nobody else may change its size while it is open; the lock sees to
 * that where there are locks. Locks, holes and `dataAt` need koffi (see libc.node.ts). Without it: no lock,
 * `discard` does nothing, `zero` writes zeros, `dataAt` says all is data.
 */
export class FileStorage implements Storage, Sparse {
  #fd: number;
  #size: number;
  #sizeChanged = false;
  #flushFailure: DiskError | undefined;
  /** Cleared when the file system turns out to be unable. */
  readonly #can = { punch: true, zeroRange: true, seekData: true };
  readonly isDevice: boolean;

  private constructor(fd: number, readonly name: string, readonly readOnly: boolean, stats: Stats, readonly background: boolean) {
    this.#fd = fd;
    this.isDevice = stats.isBlockDevice();
    this.#size = this.isDevice ? deviceSize(stats, name) : stats.size;
  }

  /** Opens `path`. Throws `DiskError`: `not-found`, `exists`, `read-only`, `locked`, `invalid-argument` for what is no file, `io`. */
  static open(path: string, { mode = "read", lock = true, background = false }: FileOptions = {}): FileStorage {
    const writable = mode !== "read";
    const context = { path, operation: "open" };
    const fd = attempt(context, writable, () => openSync(path, FLAGS[mode] | O_NONBLOCK, 0o666));
    try {
      const stats = attempt(context, writable, () => fstatSync(fd));
      if (!stats.isFile() && !stats.isBlockDevice()) throw new DiskError("invalid-argument", `is ${nature(stats)}, not a file: name an image file or a block device`, context);
      if (lock) lockFile(fd, path, writable);
      const storage = new FileStorage(fd, path, !writable, stats, background);
      if (mode === "replace" && !storage.isDevice) storage.truncate(0);
      return storage;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  get size(): number {
    return this.#size;
  }

  read(offset: number, into: Uint8Array): void {
    let done = 0;
    try {
      while (done < into.length) {
        const count = readSync(this.#fd, into, done, into.length - done, offset + done);
        if (count === 0) break;
        done += count;
      }
    } catch (error) {
      throw fileError(error, this.#context("read", offset + done));
    }
    if (done === into.length) return;
    if (offset + done < this.#size) throw new DiskError("io", "the file became shorter while it was open: another program changed it", this.#context("read", offset + done));
    into.fill(0, done);
  }

  write(offset: number, from: Uint8Array): Pending {
    this.#mayWrite("write", offset);
    if (this.isDevice && offset + from.length > this.#size) throw new DiskError("out-of-bounds", "a block device cannot grow", this.#context("write", offset));
    if (this.background && from.length >= WORTH_A_THREAD) return this.#writeLater(offset, from);
    this.#writeNow(offset, from);
  }

  #writeNow(offset: number, from: Uint8Array): void {
    let done = 0;
    try {
      while (done < from.length) done += this.#taken(writeSync(this.#fd, from, done, from.length - done, offset + done), offset + done);
    } catch (error) {
      throw fileError(error, this.#context("write", offset + done), true);
    } finally {
      if (offset + done > this.#size) this.#resized(offset + done);
    }
  }

  async #writeLater(offset: number, from: Uint8Array): Promise<void> {
    let done = 0;
    try {
      while (done < from.length) done += this.#taken((await writeOnThread(this.#fd, from, done, from.length - done, offset + done)).bytesWritten, offset + done);
    } catch (error) {
      throw fileError(error, this.#context("write", offset + done), true);
    } finally {
      if (offset + done > this.#size) this.#resized(offset + done);
    }
  }

  /** What a system call wrote of what it was given. */
  #taken(count: number, offset: number): number {
    if (count === 0) throw new DiskError("io", "the device takes no more bytes", this.#context("write", offset));
    return count;
  }

  zero(offset: number, length: number, keep = false): void {
    this.#mayWrite("zero", offset);
    const count = Math.min(length, this.#size - offset);
    if (count <= 0 || (!keep && this.#punch(offset, count)) || (keep && this.#zeroRange(offset, count))) return;
    const zeros = new Uint8Array(Math.min(count, ZEROS));
    for (let done = 0; done < count; done += zeros.length) this.#writeNow(offset + done, zeros.subarray(0, count - done));
  }

  discard(offset: number, length: number): void {
    this.#mayWrite("discard", offset);
    const count = Math.min(length, this.#size - offset);
    if (count > 0) this.#punch(offset, count);
  }

  truncate(size: number): void {
    this.#mayWrite("truncate", size);
    if (size === this.#size) return;
    if (this.isDevice) throw new DiskError("unsupported", "the size of a block device cannot be changed here", this.#context("truncate", size));
    attempt(this.#context("truncate", size), true, () => ftruncateSync(this.#fd, size));
    this.#resized(size);
  }

  /**
   * After one failure all later flushes fail too: the system may have dropped what it could not write, and a
   * second attempt would then succeed without it.
   */
  flush(barrier?: string): void {
    if (this.#flushFailure) throw this.#flushFailure;
    if (this.readOnly) return;
    try {
      attempt(this.#context(barrier === undefined ? "flush" : `flush (${barrier})`), true, () => (this.#sizeChanged ? fsyncSync : fdatasyncSync)(this.#fd));
    } catch (error) {
      this.#flushFailure = error as DiskError;
      throw error;
    }
    this.#sizeChanged = false;
  }

  /** Closing twice does nothing more. */
  close(): void {
    if (this.#fd < 0) return;
    const fd = this.#fd;
    this.#fd = -1; // the number may soon be another file's
    attempt(this.#context("close"), !this.readOnly, () => closeSync(fd));
  }

  dataAt(offset: number): SparseExtent {
    const rest = this.#size - offset;
    const c = this.#can.seekData && !this.isDevice ? libc() : undefined;
    if (!c) return { data: true, length: rest };
    const data = c.lseek(this.#fd, offset, SEEK_DATA);
    if (data < 0) {
      if (c.errno() === "ENXIO") return { data: false, length: rest };
      this.#can.seekData = false;
      return { data: true, length: rest };
    }
    if (data > offset) return { data: false, length: Math.min(rest, data - offset) };
    const hole = c.lseek(this.#fd, offset, SEEK_HOLE);
    return { data: true, length: hole > offset ? Math.min(rest, hole - offset) : rest };
  }

  /** Whether the range became a hole. */
  #punch(offset: number, length: number): boolean {
    return this.#can.punch && this.#fallocate("punch", FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, offset, length);
  }

  /** Whether the range became zeros that own their space. */
  #zeroRange(offset: number, length: number): boolean {
    return this.#can.zeroRange && this.#fallocate("zeroRange", FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, offset, length);
  }

  /** `false`: not possible here; zeros can still be written. Devices refuse (EINVAL) what is not aligned to them. */
  #fallocate(operation: "punch" | "zeroRange", mode: number, offset: number, length: number): boolean {
    const c = libc();
    if (!c) return false;
    while (c.fallocate(this.#fd, mode, offset, length) !== 0) {
      const code = c.errno();
      if (code === "EINTR") continue;
      if (code === "EINVAL") return false;
      if (code === "EOPNOTSUPP" || code === "ENOSYS" || code === "ENODEV") return (this.#can[operation] = false);
      throw systemError(code, this.#context(operation, offset), true);
    }
    return true;
  }

  #resized(size: number): void {
    this.#size = size;
    this.#sizeChanged = true;
  }

  #mayWrite(operation: string, offset: number): void {
    if (this.readOnly) throw new DiskError("read-only", "was opened read-only: open it for writing to change it", this.#context(operation, offset));
  }

  #context(operation: string, offset?: number): DiskErrorContext {
    return { path: this.name, offset, operation };
  }
}

function attempt<T>(context: DiskErrorContext, writing: boolean, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw fileError(error, context, writing);
  }
}

function nature(stats: Stats): string {
  if (stats.isDirectory()) return "a directory";
  if (stats.isFIFO()) return "a pipe";
  if (stats.isSocket()) return "a socket";
  return stats.isCharacterDevice() ? "a character device" : "something else";
}

/** `stat` says 0 for a device; Linux tells its size, in units of 512 bytes, under its number. */
function deviceSize({ rdev }: Stats, path: string): number {
  const major = (rdev >>> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  try {
    return Number(readFileSync(`/sys/dev/block/${major}:${minor}/size`, "utf8")) * 512;
  } catch (error) {
    throw new DiskError("unsupported", "a block device whose size this system does not tell: copy it to a file first", { path, operation: "open" }, error);
  }
}
