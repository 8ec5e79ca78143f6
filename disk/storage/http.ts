import { DiskError, type DiskErrorContext } from "../errors.ts";
import { type ChunkOptions, ChunkedStorage, type ChunkSource } from "./chunked.ts";
import { after, type Fetch, type FetchResponse, globalFetch, newAbortController } from "./fetch.ts";
import { badStatus, changed, cutShort, encoded, TransientError, unknownSize, wrongRange } from "./httpErrors.ts";
import { exchange, type UseAnswer } from "./httpExchange.ts";

export interface HttpOptions extends ChunkOptions {
  readonly fetch?: Fetch;
  /** How often a request is tried again after a failure that may pass; once at most when opening. Default 3. */
  readonly retries?: number;
  /** Milliseconds before the first of them; each further one waits four times as long. Default 250. */
  readonly backoff?: number;
  /** Milliseconds without a byte after which a request has failed. Default 20,000. */
  readonly timeout?: number;
}

/**
 * At 256 KiB a request's round trip (20-100 ms) and its transfer (about 40 ms at 50 Mbit/s) cost alike: smaller
 * chunks wait mostly for the network's latency, larger ones fetch mostly what a scattered boot never reads. It is
 * four qcow2 clusters, or the map of 2 GiB.
 */
const CHUNK = 256 << 10;

/** When opening, a missing answer is more often a wrong address or a missing header than a passing fault. */
const OPEN_RETRIES = 1;

/** What tells one version of a file from another, as far as the server lets us see it. */
export interface HttpIdentity { readonly size: number; readonly etag: string | undefined; readonly lastModified: string | undefined }

/**
 * A file on a web server that answers range requests; read-only. Works from any static host: the one header it sends
 * needs no CORS preflight, and every answer is checked to be the part asked for of the file that was opened.
 */
export class HttpStorage extends ChunkedStorage {
  readonly #source: HttpSource;

  private constructor(source: HttpSource, options: HttpOptions, firstChunk: Uint8Array) {
    super(source, { chunkSize: CHUNK, ...options });
    this.#source = source;
    this.preload(firstChunk);
  }

  /** Fetches the first chunk of `url`, and with it the size. Rejects with `DiskError`: `not-found`, `unsupported` for a server that cannot do ranges, `io`. */
  static async open(url: string, options: HttpOptions = {}): Promise<HttpStorage> {
    const source = new HttpSource(url, options);
    const storage = new HttpStorage(source, options, await source.open(options.chunkSize ?? CHUNK));
    storage.traffic.requests = source.requests;
    storage.traffic.bytes = Math.min(storage.chunkSize, storage.size);
    return storage;
  }

  get identity(): HttpIdentity {
    return this.#source.identity;
  }
}

class HttpSource implements ChunkSource {
  readonly name: string;
  requests = 0;
  #identity: HttpIdentity = { size: 0, etag: undefined, lastModified: undefined };
  readonly #options: HttpOptions;
  readonly #closing = newAbortController();

  constructor(url: string, options: HttpOptions) {
    this.name = url;
    this.#options = options;
  }

  get size(): number {
    return this.#identity.size;
  }

  get identity(): HttpIdentity {
    return this.#identity;
  }

  close(): void {
    this.#closing.abort();
  }

  /** Learns size and identity; the result is the first `length` bytes, or all there are. */
  async open(length: number): Promise<Uint8Array> {
    const context = { path: this.name, operation: "open" };
    const first = await this.#retry(() => this.#exchange("GET", `bytes=0-${length - 1}`, context, async (response, body) => {
      if (isEmpty(response)) return new Uint8Array(0);
      checkIsPart(response, context);
      const range = contentRange(response);
      if (range && range.start !== 0) throw wrongRange(context, `bytes 0-${length - 1}`, response.headers.get("content-range") ?? "");
      this.#identity = identityOf(response, range?.total);
      return body(range ? Math.min(length, range.end + 1) : undefined, length);
    }), OPEN_RETRIES);
    if (this.#identity.size < 0) this.#identity = { ...this.#identity, size: await this.#sizeByHead(first, length, context) };
    const want = Math.min(length, this.size);
    if (first.length !== want) throw cutShort(context, first.length, want);
    return first;
  }

  fetch(offset: number, length: number): Promise<Uint8Array> {
    const context = { path: this.name, offset, operation: "read" };
    const last = offset + length - 1;
    return this.#retry(() => this.#exchange("GET", `bytes=${offset}-${last}`, context, (response, body) => {
      checkIsPart(response, context);
      this.#checkUnchanged(response, context);
      const range = contentRange(response);
      if (range && range.total >= 0 && range.total !== this.size) throw changed(context, `its size was ${this.size} and is ${range.total}`);
      if (range && (range.start !== offset || range.end !== last)) throw wrongRange(context, `bytes ${offset}-${last}`, response.headers.get("content-range") ?? "");
      return body(length, length);
    }));
  }

  /**
   * From another origin Content-Range may be hidden from us; Content-Length never is. HEAD may tell another length
   * than GET serves, so its word is put to the test: the last byte must be there, and none behind it.
   */
  async #sizeByHead(first: Uint8Array, length: number, context: DiskErrorContext): Promise<number> {
    const told = first.length < length ? first.length : await this.#retry(() => this.#exchange("HEAD", undefined, context, async ({ status, headers }) => {
      if (status !== 200) throw status >= 500 ? badStatus(status, context) : unknownSize(context);
      return Number(headers.get("content-length") ?? NaN);
    }));
    if (!Number.isSafeInteger(told) || told < first.length || told === 0) throw unknownSize(context);
    const tail = await this.#retry(() => this.#exchange("GET", `bytes=${told - 1}-${told}`, context, (response, body) => {
      if (response.status === 416) throw unknownSize(context);
      checkIsPart(response, context);
      return body(undefined, 2);
    }));
    if (tail.length !== 1) throw unknownSize(context);
    return told;
  }

  #checkUnchanged({ headers }: FetchResponse, context: DiskErrorContext): void {
    const { etag, lastModified } = this.#identity;
    const nowEtag = headers.get("etag") ?? undefined;
    const nowModified = headers.get("last-modified") ?? undefined;
    if (etag !== undefined && nowEtag !== undefined) {
      if (withoutWeak(etag) !== withoutWeak(nowEtag)) throw changed(context, `its ETag was ${etag} and is ${nowEtag}`);
    } else if (lastModified !== undefined && nowModified !== undefined && lastModified !== nowModified) {
      throw changed(context, `it is of ${nowModified}, and was of ${lastModified}`);
    }
  }

  async #retry<T>(attempt: () => Promise<T>, most = Infinity): Promise<T> {
    const { retries = 3, backoff = 250 } = this.#options;
    for (let tries = 0; ; tries++) {
      try {
        return await attempt();
      } catch (error) {
        if (!(error instanceof TransientError) || this.#closing.signal.aborted) throw error;
        if (tries >= Math.min(retries, most)) throw new DiskError(error.kind, `${error.what} (tried ${tries + 1} times)`, error.context, error.cause);
      }
      await this.#sleep(backoff * 4 ** tries);
    }
  }

  /** At once over when the source is closed. */
  async #sleep(milliseconds: number): Promise<void> {
    const { signal } = this.#closing;
    await new Promise<void>((resolve) => {
      const cancel = after(milliseconds, done);
      function done(): void {
        cancel();
        signal.removeEventListener("abort", done);
        resolve();
      }
      signal.addEventListener("abort", done);
    });
  }

  #exchange<T>(method: "GET" | "HEAD", range: string | undefined, context: DiskErrorContext, use: UseAnswer<T>): Promise<T> {
    const { fetch = globalFetch, timeout = 20_000 } = this.#options;
    this.requests++;
    return exchange({ fetch, url: this.name, method, range, timeout, closing: this.#closing.signal }, context, use);
  }
}

function checkIsPart(response: FetchResponse, context: DiskErrorContext): void {
  if (response.status !== 206) throw badStatus(response.status, context);
  const encoding = response.headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity") throw encoded(context, encoding);
  const type = response.headers.get("content-type");
  if (type?.startsWith("multipart/byteranges")) throw wrongRange(context, "one part", type);
}

/** An empty file has no part to send; servers say so in two ways. */
function isEmpty({ status, headers }: FetchResponse): boolean {
  return (status === 416 && /^bytes \*\/0$/.test(headers.get("content-range") ?? "")) || (status === 200 && headers.get("content-length") === "0");
}

interface ContentRange { readonly start: number; readonly end: number; readonly total: number }

/** `total` -1: not told. `undefined`: no such header, or hidden from us, or unreadable. */
function contentRange({ headers }: FetchResponse): ContentRange | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers.get("content-range") ?? "");
  if (!match) return undefined;
  return { start: Number(match[1]), end: Number(match[2]), total: match[3] === "*" ? -1 : Number(match[3]) };
}

function identityOf({ headers }: FetchResponse, size = -1): HttpIdentity {
  return { size, etag: headers.get("etag") ?? undefined, lastModified: headers.get("last-modified") ?? undefined };
}

/** A server may call the same file's tag weak in one answer and strong in the next. */
function withoutWeak(etag: string): string {
  return etag.replace(/^W\//, "");
}
