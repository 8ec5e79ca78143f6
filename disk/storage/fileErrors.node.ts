import { DiskError, type DiskErrorContext, type DiskErrorKind } from "../errors.ts";

/** What each system error means to a caller, and what to do about it. The first matching row answers. */
const MEANINGS: readonly { codes: readonly string[]; kind: DiskErrorKind; what: string; writing?: boolean }[] = [
  { codes: ["ENOENT", "ENOTDIR"], kind: "not-found", what: "no such file: check the path" },
  { codes: ["EEXIST"], kind: "exists", what: "already exists: choose another name, or remove it first" },
  { codes: ["ENOSPC"], kind: "no-space", what: "no space left on the device: free some, then try again" },
  { codes: ["EDQUOT"], kind: "no-space", what: "disk quota exceeded: free some space of yours, then try again" },
  { codes: ["EFBIG"], kind: "no-space", what: "larger than this file system or this process (ulimit -f) allows: use another file system or a smaller file" },
  { codes: ["EROFS"], kind: "read-only", what: "on a read-only file system: open it read-only, or copy it", writing: true },
  { codes: ["EACCES", "EPERM"], kind: "read-only", what: "no permission to write: open it read-only, or change its permissions", writing: true },
  { codes: ["ETXTBSY"], kind: "locked", what: "in use by the system: stop what uses it", writing: true },
  { codes: ["EACCES", "EPERM"], kind: "io", what: "no permission to read: change the file's permissions" },
  { codes: ["EISDIR"], kind: "invalid-argument", what: "is a directory, not an image file: name the file inside" },
  { codes: ["EMFILE", "ENFILE"], kind: "io", what: "too many open files: close some, or raise the limit (ulimit -n)" },
  { codes: ["EBADF", "ERR_OUT_OF_RANGE"], kind: "io", what: "is closed already: open it again" },
  { codes: ["EIO"], kind: "io", what: "the device failed (EIO): check its health before trusting its contents" },
];

/** A `DiskError` for an error of `node:fs`; `writing`: the file was being opened for writing, or written. */
export function fileError(error: unknown, context: DiskErrorContext, writing = false): DiskError {
  if (error instanceof DiskError) return error;
  const code = (error as NodeJS.ErrnoException).code ?? "";
  return systemError(code, context, writing, error);
}

/** The same for the bare name of a system error, "ENOSPC". */
export function systemError(code: string, context: DiskErrorContext, writing: boolean, cause?: unknown): DiskError {
  const meaning = MEANINGS.find((row) => row.codes.includes(code) && (writing || !row.writing));
  const detail = cause instanceof Error ? cause.message : code;
  return new DiskError(meaning?.kind ?? "io", meaning?.what ?? `${context.operation ?? "access"} failed: ${detail}`, context, cause);
}
