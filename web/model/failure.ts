import { DiskError, type DiskErrorContext, type DiskErrorKind } from "../../disk/errors.ts";

/** An error as plain data, for the page to show. */
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
