import type { Gate } from "../gate.ts";

/** How bad a finding is: a `leak` wastes space, a `corruption` endangers data, an `error` kept the check from looking. */
export type FindingKind = "leak" | "corruption" | "error";

/** One thing that is wrong, in QEMU's words where QEMU has them. */
export interface Finding {
  readonly kind: FindingKind;
  readonly message: string;
  /** Bytes into the image file: the cluster, or the entry that is wrong. */
  readonly offset: number;
  readonly repaired: boolean;
}

export interface CheckOptions {
  /** Opens the further files that hold the image's own data. Default: none may be opened. */
  readonly gate?: Gate | undefined;
  /** `leaks`: give back space that nothing references. `all`: also mend what endangers data. Default: change nothing. */
  readonly repair?: "leaks" | "all" | undefined;
  /** Bytes of metadata read so far and in all, as far as known. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** An `AbortSignal`. Between two requests the check then ends with an error; what it repaired so far is consistent. */
  readonly signal?: { readonly aborted: boolean } | undefined;
  /** How many findings to keep; the counts are exact. Default 1000. */
  readonly maxFindings?: number | undefined;
  /** Bounds against hostile images: bytes for the check's own counters, and bytes of tables to read. The format has defaults. */
  readonly limits?: { readonly memory?: number | undefined; readonly reads?: number | undefined } | undefined;
}

/** What `qemu-img check --output=json` reports, field by field; what it leaves out is 0 here. Counts are as after the repair. */
export interface CheckResult {
  /** Behind the last cluster in use. */
  readonly imageEndOffset: number;
  /** Guest clusters of the disk, those with space of their own, those whose predecessor is elsewhere, compressed ones. */
  readonly totalClusters: number;
  readonly allocatedClusters: number;
  readonly fragmentedClusters: number;
  readonly compressedClusters: number;
  readonly leaks: number;
  readonly corruptions: number;
  readonly leaksFixed: number;
  readonly corruptionsFixed: number;
  readonly checkErrors: number;
  /** The first of them, as many as `maxFindings` allows. */
  readonly findings: readonly Finding[];
  /** How many there were. */
  readonly findingCount: number;
}
