import { DiskError, type DiskErrorContext } from "../errors.ts";

/** A failure that may pass by itself: worth another try. */
export class TransientError extends DiskError {}

const RANGES = "the host must answer 'Range: bytes=a-b' with 206 (nginx and Apache do so for plain files; no gzip for this file, no proxy that drops Range)";
const CORS = "from another origin the host must send 'Access-Control-Allow-Origin: *'";
const EXPOSE = "'Access-Control-Expose-Headers: Content-Range, ETag'";

/** `fetch` rejected: a browser does not tell why, so neither can we. */
export function noAnswer(context: DiskErrorContext, cause: unknown): DiskError {
  return new TransientError("io", `no answer from the server: check the address and the network; ${CORS} and ${EXPOSE}`, context, cause);
}

export function stalled(context: DiskErrorContext, milliseconds: number): DiskError {
  return new TransientError("io", `the server sent nothing for ${milliseconds / 1000} s: check the network, then try again`, context);
}

export function cutShort(context: DiskErrorContext, received: number, wanted: number, cause?: unknown): DiskError {
  return new TransientError("io", `the answer ended after ${received} of ${wanted} bytes: check the network, then try again`, context, cause);
}

export function tooLong(context: DiskErrorContext, wanted: number): DiskError {
  return new DiskError("io", `the server sent more than the ${wanted} bytes asked for: ${RANGES}`, context);
}

export function changed(context: DiskErrorContext, how: string): DiskError {
  return new DiskError("io", `the file changed on the server while it was open (${how}): open it again; an overlay made over the old one no longer fits`, context);
}

export function wrongRange(context: DiskErrorContext, wanted: string, got: string): DiskError {
  return new DiskError("io", `the server answered with another range, '${got}' instead of '${wanted}': ${RANGES}`, context);
}

export function encoded(context: DiskErrorContext, encoding: string): DiskError {
  return new DiskError("unsupported", `the server compresses its answers (Content-Encoding: ${encoding}), and then ranges mean nothing: switch that off for this file (nginx: gzip off; Apache: SetEnv no-gzip 1)`, context);
}

export function unknownSize(context: DiskErrorContext): DiskError {
  return new DiskError("unsupported", `the server does not tell the file's size: it must send Content-Range, and from another origin also ${EXPOSE}`, context);
}

/** For any status but 206. */
export function badStatus(status: number, context: DiskErrorContext): DiskError {
  if (status === 200) return new DiskError("unsupported", `the server sends the whole file instead of the part asked for (200, not 206): ${RANGES}`, context);
  if (status === 404 || status === 410) return new DiskError("not-found", `the server has no such file (${status}): check the address`, context);
  if (status === 401 || status === 403) return new DiskError("io", `the server refuses access (${status}): make the file public, or give an address that needs no login`, context);
  if (status === 416) return changed(context, "416: it has become shorter");
  if (status >= 500 || status === 408 || status === 429) return new TransientError("io", `the server is in trouble (${status}): try again later`, context);
  return new DiskError("io", `the server answered ${status}, which is no answer to a range request: ${RANGES}`, context);
}
