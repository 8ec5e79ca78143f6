import type { SingleBar } from "cli-progress";
import { fixed } from "./sizes.ts";
import type { Call, Output } from "./verb.ts";

/** Nobody needs a bar for less, in milliseconds. */
const PATIENCE = 1000;

/** Tells how far a verb is. `total` may still grow. */
export interface Meter {
  update(done: number, total: number): void;
  end(): void;
}

/** The meter that the verb was asked for: with -p qemu-img's percents, which programs read; else a bar for who watches. */
export function meterFor(call: Call, what: string, step: number): Meter {
  return new OnDemand(shownMeter(call, what, step), call.output);
}

function shownMeter(call: Call, what: string, step: number): Meter {
  if (call.has("quiet")) return { update() {}, end() {} };
  return call.has("progress") ? new Percents(call.output, step) : new Progress(what, call.output);
}

const percentOf = (done: number, total: number): number => (total === 0 ? 0 : (done * 100) / total);

/** Also tells when SIGUSR1 asks, as qemu-img does. */
class OnDemand implements Meter {
  #percent = 0;
  readonly #tell = (): void => { this.output.error(`    (${fixed(this.#percent, 2)}/100%)\n`); };

  constructor(readonly shown: Meter, readonly output: Output) {
    process.on("SIGUSR1", this.#tell);
  }

  update(done: number, total: number): void {
    this.#percent = percentOf(done, total);
    this.shown.update(done, total);
  }

  end(): void {
    process.off("SIGUSR1", this.#tell);
    this.shown.end();
  }
}

/** `    (12.50/100%)\r` on the output, whenever more than `step` percents were done. */
class Percents implements Meter {
  #last = -Infinity;

  constructor(readonly output: Output, readonly step: number) {}

  update(done: number, total: number): void {
    const percent = percentOf(done, total);
    if (percent === this.#last || (percent <= this.#last + this.step && percent !== 100)) return;
    this.#last = percent;
    this.output.out(`    (${fixed(percent, 2)}/100%)\r`);
  }

  end(): void {
    this.output.out("\n");
  }
}

/** A bar with an estimate on the terminal, for what takes longer than a second. The library is loaded only then. */
export class Progress implements Meter {
  readonly #began = performance.now();
  #bar: SingleBar | undefined;
  #wanted: boolean;

  constructor(readonly what: string, output: Output) {
    this.#wanted = output.watched;
  }

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
