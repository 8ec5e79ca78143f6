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

  constructor(readonly file: Storage, readonly descriptor: Descriptor) {
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
    if (pending instanceof Promise) return (this.#renewed = pending.catch((error: unknown) => { this.#renewed = false; throw error; }));
  }

  /** Remembers another content ID of the parent. */
  *adopt(parent: number): Task {
    const { parentCidAt } = this.descriptor;
    if (parentCidAt !== undefined) yield write(this.file, parentCidAt, Uint8Array.from(parent.toString(16).padStart(8, "0"), (digit) => digit.charCodeAt(0)));
  }

  /** The new one has as many digits, so that nothing else moves. */
  *#renew(): Task {
    const { cidAt, cidDigits } = this.descriptor, value = newContentId(cidDigits, this.#value);
    const digits = value.toString(16).padStart(cidDigits, "0");
    yield write(this.file, cidAt, Uint8Array.from(digits, (digit) => digit.charCodeAt(0)));
    yield flush(this.file, "the content ID before the first change");
    this.#value = value;
    this.#renewed = true;
  }
}
