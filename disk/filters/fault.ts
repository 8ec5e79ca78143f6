import type { DiskError } from "../errors.ts";
import type { Pending, Storage } from "../storage.ts";
import { type Call, EachCall } from "./each.ts";

/** Says which calls fail, and how; `index` counts all calls from 0. `undefined`: this one goes through. */
export type FaultPlan = (call: Call, index: number) => DiskError | undefined;

/** Fails chosen calls instead of making them. Synchronous failures are thrown, as a synchronous storage would. */
export class FaultStorage extends EachCall {
  #calls = 0;

  /** `plan` may be exchanged at any time; `undefined`: nothing fails. */
  constructor(inner: Storage, public plan: FaultPlan | undefined) {
    super(inner);
  }

  /** How many calls there were, failed ones included. */
  get calls(): number {
    return this.#calls;
  }

  protected override around(call: Call, proceed: () => Pending): Pending {
    const index = this.#calls++, failure = this.plan?.(call, index);
    if (failure) throw failure;
    return proceed();
  }
}
