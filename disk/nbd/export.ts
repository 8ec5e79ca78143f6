import type { Storage } from "../storage.ts";
import type { Task } from "../task.ts";
import { Flag } from "./protocol.ts";

/** The first part of a range, about which all is the same. */
export interface Extent { readonly length: number; readonly flags: number }

/** A "metadata context": something to be known about each range. */
export interface MetaContext {
  /** `base:allocation`, whose flags are `State`, or one of QEMU's own. */
  readonly name: string;
  /** What begins at `offset`, for `length` bytes at most. */
  extent(offset: number, length: number): Task<Extent>;
}

/** What a server offers to its clients. */
export interface Export {
  readonly name: string;
  readonly description: string | undefined;
  /** All clients share it. Whoever made the export closes it, after the server. */
  readonly storage: Storage;
  readonly readOnly: boolean;
  /** The size of requests that serves it best, in bytes: a power of two from 512 up to 32 MiB. */
  readonly preferred: number;
  /** Several clients may use it at once. */
  readonly shared: boolean;
  /** What clients can ask about; the first is `base:allocation`, which tells reads what need not be sent. */
  readonly contexts: readonly [MetaContext, ...MetaContext[]];
  /** Every change is durable before it is answered. */
  readonly writeThrough: boolean;
}

/**
 * The transmission flags. FAST_ZERO is none of them: nobody knows beforehand whether a format or file system can make
 * zeros without writing them. All connections share one disk, so one's flush is every one's.
 */
export function transmissionFlags({ readOnly, shared }: Export, structured: boolean): number {
  const changes = readOnly ? Flag.readOnly : Flag.trim | Flag.writeZeroes;
  return Flag.hasFlags | Flag.flush | Flag.fua | Flag.cache | changes | (structured ? Flag.df : 0) | (shared ? Flag.multiConn : 0);
}
