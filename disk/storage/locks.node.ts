import { DiskError } from "../errors.ts";
import { libc, type Libc } from "./libc.node.ts";

/*
 * Advisory locks that QEMU understands, the way its block/file-posix.c takes them. A lock is a set of single bytes,
 * each locked *shared*, far enough apart never to meet those of other programs:
 *   100 + p: I use permission p        200 + p: I do not share permission p with others
 * First one takes one's own bytes, then looks whether anybody holds a byte that contradicts them; so two that open
 * at once may both be refused, but never both be served. The bytes are locks only: they need not exist in the file.
 * Open-file-description locks belong to the open file, not to the process: they hold between two opens of one
 * process too, and end when the file is closed, however the process ends.
 */
const USED = 100;
const UNSHARED = 200;
const CONSISTENT_READ = 0;
const WRITE = 1;
const RESIZE = 3;

const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;

/** Nobody else may write or resize an image while it is open, not even for reading: its tables would be stale. */
const UNSHARED_PERMISSIONS = [WRITE, RESIZE];

/**
 * Takes the lock of a reader, or of a writer, on an open file. Throws `locked` if another program holds one that
 * contradicts it. Without koffi, and on file systems that have no such locks, there is no lock.
 */
export function lockFile(fd: number, path: string, writable: boolean): void {
  const c = libc();
  if (!c) return;
  const used = writable ? [CONSISTENT_READ, WRITE, RESIZE] : [CONSISTENT_READ];
  const own = [...used.map((p) => USED + p), ...UNSHARED_PERMISSIONS.map((p) => UNSHARED + p)];
  const contradicting = [...used.map((p) => UNSHARED + p), ...UNSHARED_PERMISSIONS.map((p) => USED + p)];
  for (const byte of own) if (!take(c, fd, byte, path, writable)) return;
  for (const byte of contradicting) if (isTaken(c, fd, byte)) throw lockedError(path, writable);
}

/** `false`: this file system has no locks. */
function take(c: Libc, fd: number, byte: number, path: string, writable: boolean): boolean {
  if (c.fcntl(fd, F_OFD_SETLK, flock(F_RDLCK, byte)) === 0) return true;
  const code = c.errno();
  if (code === "EAGAIN" || code === "EACCES") throw lockedError(path, writable);
  if (["EINVAL", "ENOLCK", "ENOSYS", "EOPNOTSUPP"].includes(code)) return false;
  throw new DiskError("io", `cannot lock the file (${code}): open it without a lock if nobody else uses it`, { path, operation: "lock" });
}

/** Whether somebody else holds `byte`: whether an exclusive lock on it would be refused. */
function isTaken(c: Libc, fd: number, byte: number): boolean {
  const asked = flock(F_WRLCK, byte);
  if (c.fcntl(fd, F_OFD_GETLK, asked) !== 0) return false;
  return new DataView(asked.buffer).getInt16(0, true) !== F_UNLCK;
}

function lockedError(path: string, writable: boolean): DiskError {
  const what = writable
    ? "in use by another program: close that one first, or open this one read-only without a lock if a torn picture will do"
    : "being written by another program: close that one first, or open this one without a lock if a torn picture will do";
  return new DiskError("locked", what, { path, operation: "lock" });
}

/** A 64-bit `struct flock`: l_type, l_whence = SEEK_SET, l_start, l_len = 1, l_pid = 0 as these locks demand. */
function flock(type: number, byte: number): Uint8Array<ArrayBuffer> {
  const struct = new DataView(new ArrayBuffer(32));
  struct.setInt16(0, type, true);
  struct.setUint32(8, byte, true);
  struct.setUint32(16, 1, true);
  return new Uint8Array(struct.buffer);
}
