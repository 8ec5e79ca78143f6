import type { SingleBar } from "cli-progress";
import type { Output } from "./verb.ts";

/** Nobody needs a bar for less, in milliseconds. */
const PATIENCE = 1000;

/** A bar with an estimate on the terminal, for what takes longer than a second. The library is loaded only then. */
export class Progress {
  readonly #began = performance.now();
  #bar: SingleBar | undefined;
  #wanted: boolean;

  constructor(readonly what: string, output: Output) {
    this.#wanted = output.watched;
  }

  /** `total` may still grow. */
  readonly update = (done: number, total: number): void => {
    if (this.#bar !== undefined) {
      this.#bar.setTotal(total);
      this.#bar.update(done);
    } else if (this.#wanted && performance.now() - this.#began > PATIENCE) {
      this.#wanted = false;
      void this.#show(done, total);
    }
  };

  /** Takes the bar away. */
  end(): void {
    this.#wanted = false;
    this.#bar?.stop();
    this.#bar = undefined;
  }

  async #show(done: number, total: number): Promise<void> {
    const { default: { SingleBar, Presets } } = await import("cli-progress");
    this.#bar = new SingleBar({ format: `${this.what} {bar} {percentage}% | {eta_formatted} left`, stream: process.stderr, clearOnComplete: true, hideCursor: true }, Presets.shades_grey);
    this.#bar.start(total, done);
  }
}
