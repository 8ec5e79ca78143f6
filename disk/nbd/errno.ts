import { DiskError, type DiskErrorKind } from "../errors.ts";
import { Errno } from "./protocol.ts";

/** What a client is told of a failure. */
export function errnoOf(error: unknown): number {
  return error instanceof DiskError ? ERRNO[error.kind] : Errno.io;
}

const ERRNO: Record<DiskErrorKind, number> = {
  io: Errno.io, corrupt: Errno.io, "invalid-format": Errno.io, "not-found": Errno.io, exists: Errno.io, locked: Errno.io,
  "no-space": Errno.noSpace, "read-only": Errno.perm, "out-of-bounds": Errno.invalid, "invalid-argument": Errno.invalid, unsupported: Errno.notSupported,
};

interface Meaning { readonly kind: DiskErrorKind; readonly what: string }

const MEANINGS = new Map<number, Meaning>([
  [Errno.perm, { kind: "read-only", what: "the server allows no changes (EPERM)" }],
  [Errno.io, { kind: "io", what: "the server could not do it (EIO): look for the reason there" }],
  [Errno.noMemory, { kind: "io", what: "the server has not enough memory (ENOMEM)" }],
  [Errno.invalid, { kind: "invalid-argument", what: "the server finds the request wrong (EINVAL)" }],
  [Errno.noSpace, { kind: "no-space", what: "the server has no space left (ENOSPC)" }],
  [Errno.overflow, { kind: "io", what: "the server finds the request too large (EOVERFLOW)" }],
  [Errno.notSupported, { kind: "unsupported", what: "the server cannot do that (ENOTSUP)" }],
  [Errno.shutdown, { kind: "io", what: "the server is going down (ESHUTDOWN)" }],
]);

/** What an error that a server answers means here. */
export function meaningOf(errno: number): Meaning {
  return MEANINGS.get(errno) ?? { kind: "io", what: `the server answered error ${errno}` };
}
