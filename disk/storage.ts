/** `undefined`: the work is done. A promise: it will be. A failure is thrown, or rejects; it is always a `DiskError`. */
export type Pending = void | Promise<void>;

/**
 * A random-access byte device. Files, OPFS, HTTP, caches, filters and whole disks all are one, so they all stack.
 * Offsets and lengths are bytes: integers from 0 to 2^53 - 1. Each call may answer synchronously or not; a storage
 * that can answer at once must, because a guest waits on every sector. A buffer given to a call belongs to the
 * storage until the call is done.
 */
export interface Storage {
  /** A file name or URL for messages and for resolving relative backing file names. */
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  /** Fills `into` from `offset`; bytes past the end read as zero. */
  read(offset: number, into: Uint8Array): Pending;
  /** Stores `from` at `offset`. A byte storage grows if needed; a disk of fixed size refuses as `out-of-bounds`. */
  write(offset: number, from: Uint8Array): Pending;
  /** Makes the range read as zeros. Its space may be given back unless `keep`. Does not grow the storage. */
  zero(offset: number, length: number, keep?: boolean): Pending;
  /** A hint that nobody needs these bytes any more: afterwards they read as before or as zeros. Never grows. */
  discard(offset: number, length: number): Pending;
  /** Sets the size; new bytes read as zero. */
  truncate(size: number): Pending;
  /** Done when every completed change is durable. `barrier` names the reason, for traces and fault injection. */
  flush(barrier?: string): Pending;
  /** Flushes nothing: whoever wrote also flushes. Releases handles and locks; later calls fail. */
  close(): Pending;
}

/**
 * Done when all of them are: waits for every one even if one fails, since each owns a part of someone's buffer,
 * and then fails with the first failure.
 */
export function all(pending: readonly Pending[]): Pending {
  const promises = pending.filter((one) => one instanceof Promise);
  if (promises.length <= 1) return promises[0];
  return Promise.allSettled(promises).then((results) => {
    for (const result of results) if (result.status === "rejected") throw result.reason;
  });
}

/** Fails with `error`, but not before what was started is done with the caller's buffer. */
export function failedAfter(started: readonly Pending[], error: unknown): Pending {
  if (started.length === 0) throw error;
  return all([Promise.reject(error), ...started]);
}
