import { DiskError } from "../disk/errors.ts";
import type { Pending, Storage } from "../disk/storage.ts";

export const SECTOR = 512;

/** Buffers up to this size are kept for the next request. Larger ones are rare, and garbage afterwards. */
const SPARE_LIMIT = 2 << 20;

export type DriveOperation = "read" | "write" | "zero" | "discard" | "flush";

/** A request that the storage failed, as told to the page. */
export interface DriveFailure {
  /** `ide0`, `virtio1`, `cdrom`. */
  readonly drive: string;
  readonly operation: DriveOperation;
  /** Bytes on the guest's disk. */
  readonly offset: number;
  readonly length: number;
  readonly error: DiskError;
}

/** What to do about a failure: try the same request again, or let the guest see an I/O error. */
export type FailureVerdict = "retry" | "fail";
export type FailurePolicy = (failure: DriveFailure) => FailureVerdict | Promise<FailureVerdict>;

/** One request. `start` may be called again after a failure. */
export interface DriveRequest {
  readonly operation: DriveOperation;
  readonly offset: number;
  readonly length: number;
  readonly start: () => Pending;
}

/** Counters since the machine was made. `asynchronous`: requests that the storage answered with a promise. */
export interface DriveStatistics {
  read: number;
  write: number;
  zero: number;
  discard: number;
  flush: number;
  bytesRead: number;
  bytesWritten: number;
  asynchronous: number;
  failed: number;
}

/**
 * A guest's drive: a storage cut into sectors. A storage of odd size is rounded up to whole sectors: the missing bytes
 * read as zeros, and a write to them is the storage's to grow for or to refuse.
 *
 * `submit` is the one way from a controller to the storage. It completes in the same call if the storage answers at
 * once, and creates no promise then.
 */
export class Drive {
  readonly sectors: number;
  readonly readOnly: boolean;
  readonly statistics: DriveStatistics = {
    read: 0, write: 0, zero: 0, discard: 0, flush: 0, bytesRead: 0, bytesWritten: 0, asynchronous: 0, failed: 0,
  };
  #outstanding = 0;
  #waiting: (() => void)[] = [];
  #spare: Uint8Array | undefined;

  constructor(readonly name: string, readonly storage: Storage, readOnly = false, readonly policy: FailurePolicy = () => "fail") {
    if (!(storage.size > 0)) {
      throw new DiskError("invalid-argument", "an empty storage cannot be a drive: truncate() it to the wanted size", { path: storage.name });
    }
    this.sectors = Math.ceil(storage.size / SECTOR);
    this.readOnly = readOnly || storage.readOnly;
  }

  get size(): number {
    return this.sectors * SECTOR;
  }

  /** Whether a guest's request for these sectors lies on the disk. */
  holds(sector: number, count: number): boolean {
    return sector >= 0 && count >= 0 && sector + count <= this.sectors;
  }

  /** Calls exactly one of `completed` and `failed`, now or later; a failure has been offered to the policy before. */
  submit(request: DriveRequest, completed: () => void, failed: (error: DiskError) => void): void {
    this.statistics[request.operation]++;
    if (request.operation === "read") this.statistics.bytesRead += request.length;
    if (request.operation === "write") this.statistics.bytesWritten += request.length;
    const pending = this.#attempt(request);
    if (pending === undefined) return completed();
    if (pending instanceof DiskError) return failed(pending);
    this.statistics.asynchronous++;
    this.#outstanding++;
    void pending.then((error) => (error === undefined ? completed() : failed(error))).finally(() => this.#settled());
  }

  /** Done when no request is with the storage; the callbacks of the last one have run. */
  idle(): Pending {
    if (this.#outstanding > 0) return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** A buffer to hand to the storage. Give it back when the request is done. */
  borrow(length: number): Uint8Array {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare && spare.length >= length) return spare.subarray(0, length);
    return new Uint8Array(Math.max(length, 4096)).subarray(0, length);
  }

  giveBack(buffer: Uint8Array): void {
    if (buffer.buffer.byteLength <= SPARE_LIMIT) this.#spare = new Uint8Array(buffer.buffer);
  }

  #settled(): void {
    if (--this.#outstanding > 0) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  /** `undefined`: done. An error: it failed for good. A promise of either: not yet known. */
  #attempt(request: DriveRequest): undefined | DiskError | Promise<undefined | DiskError> {
    let pending: Pending;
    try {
      pending = request.start();
    } catch (error) {
      return this.#failure(request, error);
    }
    return pending instanceof Promise ? pending.then(() => undefined, (error: unknown) => this.#failure(request, error)) : undefined;
  }

  #failure(request: DriveRequest, reason: unknown): DiskError | Promise<undefined | DiskError> {
    const { operation, offset, length } = request;
    const error = reason instanceof DiskError ? reason
      : new DiskError("io", `unexpected failure: ${String(reason)}`, { path: this.storage.name, offset, operation }, reason);
    const verdict = this.policy({ drive: this.name, operation, offset, length, error });
    if (!(verdict instanceof Promise)) return verdict === "retry" ? this.#again(request) : this.#giveUp(error);
    return verdict.then((word) => (word === "retry" ? this.#attempt(request) : this.#giveUp(error)), () => this.#giveUp(error));
  }

  /** A retry decided at once still waits a turn, so that a policy that always says so cannot hang the machine. */
  #again(request: DriveRequest): Promise<undefined | DiskError> {
    return new Promise<void>((resolve) => setTimeout(resolve, 0)).then(() => this.#attempt(request));
  }

  #giveUp(error: DiskError): DiskError {
    this.statistics.failed++;
    return error;
  }
}

/** `following` after `pending`, in the same call if that is done. */
export function after(pending: Pending, following: () => Pending): Pending {
  return pending instanceof Promise ? pending.then(following) : following();
}
