import type { Pending, Storage } from "../storage.ts";
import { type Call, EachCall } from "./each.ts";

export interface DelayOptions {
  /** Decides for each call whether it is answered later. Default: all are. */
  readonly delays?: (call: Call) => boolean;
  /** The wait; the call reaches the inner storage after it. Default: a few microtasks, a different number each time. */
  readonly wait?: (call: Call) => Promise<void>;
}

/**
 * Makes a storage answer asynchronously, always or in part, so that calls overlap and overtake each other as they
 * do over a network. With a seeded `delays` a run can be repeated.
 */
export class DelayedStorage extends EachCall {
  readonly #delays: (call: Call) => boolean;
  readonly #wait: (call: Call) => Promise<void>;

  constructor(inner: Storage, { delays = () => true, wait = microtasks() }: DelayOptions = {}) {
    super(inner);
    this.#delays = delays;
    this.#wait = wait;
  }

  protected override around(call: Call, proceed: () => Pending): Pending {
    return this.#delays(call) ? this.#wait(call).then(proceed) : proceed();
  }
}

/** Waits of 1 to 5 microtasks in an irregular but fixed order. */
function microtasks(): () => Promise<void> {
  let calls = 0;
  return async () => {
    for (let hops = 1 + ((++calls * 7) % 5); hops > 0; hops--) await Promise.resolve();
  };
}
