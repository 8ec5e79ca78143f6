import { DiskError, type DiskErrorContext, type DiskErrorKind } from "../../disk/errors.ts";

/** An error as plain data: what crosses from the worker, and what the page shows. */
export interface Failure {
  readonly kind: DiskErrorKind | "unexpected";
  readonly message: string;
  readonly what: string;
  readonly context: DiskErrorContext;
}

export function toFailure(error: unknown): Failure {
  if (error instanceof DiskError) return { kind: error.kind, message: error.message, what: error.what, context: error.context };
  const message = error instanceof Error ? error.message : String(error);
  return { kind: "unexpected", message, what: message, context: {} };
}

export function fromFailure({ kind, message, what, context }: Failure): Error {
  return kind === "unexpected" ? new Error(message) : new DiskError(kind, what, context);
}
