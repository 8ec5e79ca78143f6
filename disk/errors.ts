/**
 * What went wrong, as far as a caller can act on it:
 * - `io`: the device or server failed; trying again may help
 * - `invalid-format`: this is not an image of the format it was opened as
 * - `unsupported`: a valid image or request that this build cannot serve; the message names the feature
 * - `corrupt`: the image contradicts its own format
 * - `out-of-bounds`: the request does not fit the disk
 * - `not-found`, `no-space`, `read-only`, `locked`: as the words say
 * - `exists`: would overwrite something that is there
 * - `invalid-argument`: the caller's own parameters make no sense
 */
export type DiskErrorKind =
  | "io" | "invalid-format" | "unsupported" | "corrupt" | "out-of-bounds"
  | "not-found" | "no-space" | "read-only" | "locked" | "exists" | "invalid-argument";

/** Where it went wrong. `offset` is in bytes: in the image file, or in the guest disk when `operation` is a guest's. */
export interface DiskErrorContext {
  readonly path?: string | undefined;
  readonly offset?: number | undefined;
  readonly format?: string | undefined;
  readonly operation?: string | undefined;
}

/** The one error of disk86. Its message says what happened, where, and what to do about it. */
export class DiskError extends Error {
  override readonly name = "DiskError";
  constructor(readonly kind: DiskErrorKind, readonly what: string, readonly context: DiskErrorContext = {}, cause?: unknown) {
    super(describe(what, context), cause === undefined ? undefined : { cause });
  }

  /** `error` with more of its whereabouts filled in; what it already knows stays. Other errors pass unchanged. */
  static within(error: unknown, context: DiskErrorContext): unknown {
    if (!(error instanceof DiskError)) return error;
    return new DiskError(error.kind, error.what, { ...context, ...definedOnly(error.context) }, error.cause);
  }
}

function definedOnly(context: DiskErrorContext): DiskErrorContext {
  return Object.fromEntries(Object.entries(context).filter(([, value]) => value !== undefined));
}

function describe(what: string, { path, offset }: DiskErrorContext): string {
  const at = offset === undefined ? "" : ` (at offset ${hex(offset)})`;
  return `${path === undefined ? "" : `${path}: `}${what}${at}`;
}

/** `0x1f0000`: how offsets are written in messages. */
export function hex(offset: number): string {
  return `0x${offset.toString(16)}`;
}
