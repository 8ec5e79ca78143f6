import { DiskError, type DiskErrorContext } from "../errors.ts";
import { type AbortSignalLike, after, type Fetch, type FetchResponse, newAbortController } from "./fetch.ts";
import { cutShort, noAnswer, stalled, tooLong } from "./httpErrors.ts";

export interface Exchange {
  readonly fetch: Fetch;
  readonly url: string;
  readonly method: "GET" | "HEAD";
  /** The value of the Range header. */
  readonly range: string | undefined;
  /** Milliseconds without a byte after which it has failed. */
  readonly timeout: number;
  /** Aborts it. */
  readonly closing: AbortSignalLike;
}

/** Reads a body of exactly so many bytes, or, `exactly` undefined, of at most so many. */
export type ReadBody = (exactly: number | undefined, most: number) => Promise<Uint8Array>;

/** Judges an answer and may read its body; throws the `DiskError` that it deserves. */
export type UseAnswer<T> = (response: FetchResponse, body: ReadBody) => Promise<T>;

/** One request. What `use` leaves of the body is not downloaded. */
export async function exchange<T>({ fetch, url, method, range, timeout, closing }: Exchange, context: DiskErrorContext, use: UseAnswer<T>): Promise<T> {
  const watch = new Watch(timeout, closing, context);
  try {
    const response = await fetch(url, { method, headers: range === undefined ? {} : { Range: range }, cache: "no-store", signal: watch.signal });
    watch.alive();
    return await use(response, (exactly, most) => readBody(response, exactly, most, watch, context));
  } catch (error) {
    throw watch.failure ?? (error instanceof DiskError ? error : noAnswer(context, error));
  } finally {
    watch.end();
  }
}

/** Ends a request when nothing comes any more, when the storage is closed, and when nobody needs the rest. */
class Watch {
  readonly #controller = newAbortController();
  readonly #close = (): void => this.#fail(new DiskError("io", "was closed while it was read", this.#context));
  #cancelTimer: (() => void) | undefined;
  failure: DiskError | undefined;
  readonly signal = this.#controller.signal;
  readonly #timeout: number;
  readonly #closing: AbortSignalLike;
  readonly #context: DiskErrorContext;

  constructor(timeout: number, closing: AbortSignalLike, context: DiskErrorContext) {
    this.#timeout = timeout;
    this.#closing = closing;
    this.#context = context;
    if (closing.aborted) this.#close();
    else closing.addEventListener("abort", this.#close);
    this.alive();
  }

  /** Something came. */
  alive(): void {
    this.#cancelTimer?.();
    this.#cancelTimer = after(this.#timeout, () => this.#fail(stalled(this.#context, this.#timeout)));
  }

  end(): void {
    this.#cancelTimer?.();
    this.#closing.removeEventListener("abort", this.#close);
    this.#controller.abort();
  }

  #fail(failure: DiskError): void {
    this.failure ??= failure;
    this.#controller.abort();
  }
}

/** The body, of exactly or at most so many bytes; never holds more, whatever is sent. */
async function readBody(response: FetchResponse, exactly: number | undefined, most: number, watch: Watch, context: DiskErrorContext): Promise<Uint8Array> {
  const limit = exactly ?? most;
  const bytes = new Uint8Array(limit);
  const reader = response.body?.getReader();
  let done = 0;
  const next = async (): Promise<Uint8Array | undefined> => {
    const piece = await reader?.read().catch((error: unknown) => {
      throw watch.failure ?? cutShort(context, done, limit, error);
    });
    watch.alive();
    return piece?.done ? undefined : piece?.value;
  };
  for (let piece = await next(); piece; piece = await next()) {
    if (done + piece.length > limit) throw tooLong(context, limit);
    bytes.set(piece, done);
    done += piece.length;
  }
  if (exactly !== undefined && done < exactly) throw cutShort(context, done, exactly);
  return done === limit ? bytes : bytes.slice(0, done);
}
