import { DiskError } from "../../errors.ts";
import { Filter } from "../../filters/filter.ts";
import type { Pending, Storage } from "../../storage.ts";
import { flush, run, write, type Task } from "../../task.ts";
import { type Descriptor, NO_CONTENT } from "./descriptor.ts";

/** A content ID with this value means that another, longer one counts. */
const LONG_ID = 0xffff_fffe;

/** A random content ID of at most so many hexadecimal digits, other than `old`. */
export function newContentId(digits = 8, old = NO_CONTENT): number {
  for (;;) {
    const [random = 0] = crypto.getRandomValues(new Uint32Array(1)), id = random % 16 ** digits;
    if (id !== old && id !== NO_CONTENT && id !== LONG_ID) return id;
  }
}

/**
 * The image's content ID. Images that stand on this one remember it, and refuse it once it is another: so it changes,
 * and that is durable, before anything else changes for the first time after the image was opened.
 */
export class ContentId {
  #value: number;
  /** Whether it has a new one; a promise: it is being given one. */
  #renewed: boolean | Promise<void> = false;

  /** Without `writable` it stays as it is. */
  constructor(readonly file: Storage, readonly descriptor: Descriptor, readonly writable: boolean) {
    this.#value = descriptor.cid;
  }

  get value(): number {
    return this.#value;
  }

  /** Done when the image has a new content ID, be it since long. */
  renew(): Pending {
    if (this.#renewed === true) return;
    if (this.#renewed !== false) return this.#renewed;
    const pending = run(this.#renew());
    if (pending instanceof Promise) this.#renewed = pending.catch((error: unknown) => { this.#renewed = false; throw error; });
    return pending;
  }

  /** `file` as a storage whose first change renews the content ID. */
  guard(file: Storage): Storage {
    return this.writable ? new Renewing(file, this) : file;
  }

  /** The new one has as many digits, so that nothing else moves. */
  *#renew(): Task {
    const { cidAt, cidDigits } = this.descriptor, value = newContentId(cidDigits, this.#value);
    const digits = value.toString(16).padStart(cidDigits, "0");
    if (this.file.readOnly) throw new DiskError("read-only", "the descriptor cannot be written", { path: this.file.name, format: "vmdk" });
    yield write(this.file, cidAt, Uint8Array.from(digits, (digit) => digit.charCodeAt(0)));
    yield flush(this.file, "the content ID before the first change");
    this.#value = value;
    this.#renewed = true;
  }
}

class Renewing extends Filter {
  constructor(file: Storage, readonly content: ContentId) {
    super(file);
  }

  override write(offset: number, from: Uint8Array): Pending {
    return this.#after(() => super.write(offset, from));
  }

  override zero(offset: number, length: number, keep?: boolean): Pending {
    return this.#after(() => super.zero(offset, length, keep));
  }

  override discard(offset: number, length: number): Pending {
    return this.#after(() => super.discard(offset, length));
  }

  #after(change: () => Pending): Pending {
    const renewal = this.content.renew();
    return renewal ? renewal.then(change) : change();
  }
}
