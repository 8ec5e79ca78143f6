import type { Storage } from "../storage.ts";
import type { Task } from "../task.ts";
import { Flag } from "./protocol.ts";

/** What stands at a range, for `length` bytes. */
export interface BlockStatus {
  readonly length: number;
  /** It takes no space of its own: writing there may find none. */
  readonly hole: boolean;
  readonly zero: boolean;
  /** The image in the chain that has it, 0: the top. -1: none. */
  readonly depth: number;
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
  /** The metadata contexts that clients can ask for, of those that `BlockStatus` can answer. */
  readonly contexts: readonly string[];
  /** Every change is durable before it is answered. */
  readonly writeThrough: boolean;
  /** What stands at `[offset, offset + length)`, or at a part of it that begins there. */
  status(offset: number, length: number): Task<BlockStatus>;
}

/**
 * The transmission flags. FAST_ZERO is none of them: nobody knows beforehand whether a format or file system can make
 * zeros without writing them. All connections share one disk, so one's flush is every one's.
 */
export function transmissionFlags({ readOnly, shared }: Export, structured: boolean): number {
  const changes = readOnly ? Flag.readOnly : Flag.trim | Flag.writeZeroes;
  return Flag.hasFlags | Flag.flush | Flag.fua | Flag.cache | changes | (structured ? Flag.df : 0) | (shared ? Flag.multiConn : 0);
}
