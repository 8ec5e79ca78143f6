import type { FailureVerdict } from "../../emulator/index.ts";

/** Failed requests that wait for someone's word. */
export class Questions {
  #next = 1;
  readonly #open = new Map<number, (verdict: FailureVerdict) => void>();

  get size(): number {
    return this.#open.size;
  }

  ask(): { readonly number: number; readonly answer: Promise<FailureVerdict> } {
    const number = this.#next++;
    const answer = new Promise<FailureVerdict>((resolve) => { this.#open.set(number, resolve); });
    return { number, answer };
  }

  answer(number: number, verdict: FailureVerdict): void {
    this.#open.get(number)?.(verdict);
    this.#open.delete(number);
  }

  answerAll(verdict: FailureVerdict): void {
    for (const number of this.#open.keys()) this.answer(number, verdict);
  }
}
