import { createRequire } from "node:module";

/** The few system calls that Node does not offer. A negative result is a failure, and `errno()` says which. */
export interface Libc {
  lseek(fd: number, offset: number, whence: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  /** `flock`: a `struct flock` as bytes, see locks.node.ts. */
  fcntl(fd: number, command: number, flock: Uint8Array): number;
  /** The name of the last failure: "EAGAIN". */
  errno(): string;
}

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const FALLOC_KEEP_SIZE = 0x01;
export const FALLOC_PUNCH_HOLE = 0x02;
export const FALLOC_ZERO_RANGE = 0x10;

/** Where off_t is 64 bits and `struct flock` is laid out little-endian, as locks.node.ts packs it. */
const ARCHITECTURES: ReadonlySet<string> = new Set(["x64", "arm64", "riscv64", "loong64"]);

let loaded: Libc | null | undefined;

/**
 * The C library through koffi, on 64-bit Linux; `undefined` elsewhere or where koffi, an optional dependency, is
 * not installed. Loading costs 6-10 ms once, so only what needs it calls this.
 */
export function libc(): Libc | undefined {
  if (loaded === undefined) loaded = load() ?? null;
  return loaded ?? undefined;
}

function load(): Libc | undefined {
  if (process.platform !== "linux" || !ARCHITECTURES.has(process.arch)) return undefined;
  try {
    const koffi = createRequire(import.meta.url)("koffi") as typeof import("koffi");
    const library = koffi.load(null);
    const fcntl = library.func("int fcntl(int fd, int cmd, ...)") as (fd: number, command: number, type: string, argument: Uint8Array) => number;
    const names = new Map(Object.entries(koffi.os.errno).map(([name, code]) => [code, name]));
    return {
      lseek: library.func("int64_t lseek(int fd, int64_t offset, int whence)") as Libc["lseek"],
      fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t len)") as Libc["fallocate"],
      fcntl: (fd, command, flock) => fcntl(fd, command, "void *", flock),
      errno: () => names.get(koffi.errno()) ?? `errno ${koffi.errno()}`,
    };
  } catch {
    return undefined; // not installed, or not for this C library: callers fall back, as documented there
  }
}
