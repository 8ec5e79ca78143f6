/*
 * The parts of the web platform that HTTP needs. Browsers and Node both have them as globals, but the core's type
 * library knows neither: this is the one place that takes them from `globalThis`.
 */

export interface FetchReader {
  read(): Promise<{ readonly done: boolean; readonly value?: Uint8Array | undefined }>;
  cancel(): Promise<void>;
}

export interface FetchResponse {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  readonly body: { getReader(): FetchReader } | null;
}

export interface FetchRequest {
  readonly method: "GET" | "HEAD";
  readonly headers: Record<string, string>;
  readonly cache: "no-store";
  readonly signal: AbortSignalLike;
}

/** The global `fetch`, or one that behaves like it: rejects when there is no answer, and when `signal` aborts. */
export type Fetch = (url: string, request: FetchRequest) => Promise<FetchResponse>;

export interface AbortSignalLike {
  readonly aborted: boolean;
  addEventListener(type: "abort", listener: () => void): void;
  removeEventListener(type: "abort", listener: () => void): void;
}

export interface AbortControllerLike {
  readonly signal: AbortSignalLike;
  abort(): void;
}

interface Host {
  readonly fetch: Fetch;
  readonly AbortController: new () => AbortControllerLike;
  setTimeout(action: () => void, milliseconds: number): unknown;
  clearTimeout(timer: unknown): void;
}

const host = globalThis as unknown as Host;

export const globalFetch: Fetch = (url, request) => host.fetch(url, request);

export const newAbortController = (): AbortControllerLike => new host.AbortController();

/** Calls `action` once after `milliseconds`; the result cancels that. */
export function after(milliseconds: number, action: () => void): () => void {
  const timer = host.setTimeout(action, milliseconds);
  return () => host.clearTimeout(timer);
}
