import type { BackingReference } from "../image.ts";

/** A value of what a format tells about itself. */
export type InfoValue = string | number | bigint | boolean | readonly InfoValue[] | InfoObject;
/** Keys are QEMU's, as in its JSON: `lazy-refcounts`. Their order means nothing. */
export interface InfoObject { readonly [key: string]: InfoValue }

/** One internal snapshot, for listings. */
export interface SnapshotInfo {
  readonly id: string;
  readonly name: string;
  readonly vmStateSize: number;
  /** When it was taken, since 1970. */
  readonly seconds: number;
  readonly nanoseconds: number;
  /** How long the guest had run, in nanoseconds. */
  readonly vmClock: bigint;
  readonly icount: bigint | undefined;
}

/** What an image says of itself: read from its header, without its mapping. */
export interface FormatInfo {
  /** Guest size in bytes. */
  readonly size: number;
  readonly clusterSize?: number | undefined;
  readonly encrypted?: boolean | undefined;
  /** It was not closed cleanly. `null`: no mark says so, and as QEMU for this format a listing does not mention it. */
  readonly dirty?: boolean | null | undefined;
  readonly backing?: BackingReference | undefined;
  /** The names of the further files that hold its data, as far as they were looked at. */
  readonly files?: readonly string[] | undefined;
  readonly snapshots?: readonly SnapshotInfo[] | undefined;
  /** What QEMU calls the format specific information. */
  readonly specific?: InfoObject | undefined;
}
