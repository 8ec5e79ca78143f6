import type { Pending } from "../storage.ts";
import { Filter } from "./filter.ts";

/** Counts of calls, and of bytes asked for, since the start or the last `reset`. */
export interface Counts {
  reads: number; bytesRead: number;
  writes: number; bytesWritten: number;
  flushes: number;
}

/** Counts what passes; cheap enough to stay in place. */
export class StatsStorage extends Filter {
  readonly counts: Counts = { reads: 0, bytesRead: 0, writes: 0, bytesWritten: 0, flushes: 0 };

  reset(): void {
    Object.assign(this.counts, { reads: 0, bytesRead: 0, writes: 0, bytesWritten: 0, flushes: 0 });
  }

  override read(offset: number, into: Uint8Array): Pending {
    this.counts.reads++;
    this.counts.bytesRead += into.length;
    return super.read(offset, into);
  }

  override write(offset: number, from: Uint8Array): Pending {
    this.counts.writes++;
    this.counts.bytesWritten += from.length;
    return super.write(offset, from);
  }

  override flush(barrier?: string): Pending {
    this.counts.flushes++;
    return super.flush(barrier);
  }
}
