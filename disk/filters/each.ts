import type { Pending } from "../storage.ts";
import { Filter } from "./filter.ts";

/** One call to a storage, as a filter that treats all alike sees it. For truncate, `length` is the new size. */
export interface Call {
  readonly op: "read" | "write" | "zero" | "discard" | "truncate" | "flush" | "close";
  readonly offset: number;
  readonly length: number;
  readonly barrier?: string | undefined;
}

/** A filter that does the same to every call: `around` gets the call, and `proceed`, which makes it. */
export abstract class EachCall extends Filter {
  protected abstract around(call: Call, proceed: () => Pending): Pending;

  override read(offset: number, into: Uint8Array): Pending {
    return this.around({ op: "read", offset, length: into.length }, () => super.read(offset, into));
  }

  override write(offset: number, from: Uint8Array): Pending {
    return this.around({ op: "write", offset, length: from.length }, () => super.write(offset, from));
  }

  override zero(offset: number, length: number, keep?: boolean): Pending {
    return this.around({ op: "zero", offset, length }, () => super.zero(offset, length, keep));
  }

  override discard(offset: number, length: number): Pending {
    return this.around({ op: "discard", offset, length }, () => super.discard(offset, length));
  }

  override truncate(size: number): Pending {
    return this.around({ op: "truncate", offset: 0, length: size }, () => super.truncate(size));
  }

  override flush(barrier?: string): Pending {
    return this.around({ op: "flush", offset: 0, length: 0, barrier }, () => super.flush(barrier));
  }

  override close(): Pending {
    return this.around({ op: "close", offset: 0, length: 0 }, () => super.close());
  }
}
