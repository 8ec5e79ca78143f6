/** What a row must reach, and what it aims for: ratios (theirs / ours) at least, absolute values at most. */
export interface Goal { readonly floor: number; readonly goal: number }

/** Rows beside their floors and goals. */
export class Goals {
  constructor(title: string) {
    console.log(`\n${title}`);
  }

  /** `theirs` and `ours` are times: less is better. */
  ratio(name: string, theirs: number, ours: number, unit: string, { floor, goal }: Goal): void {
    const ratio = theirs / ours;
    this.#row(name, `${shown(theirs)} ${unit}`, `${shown(ours)} ${unit}`, `ratio ${ratio.toFixed(2)}`, `floor ${floor}, goal ${goal}`, verdict(ratio >= floor, ratio >= goal));
  }

  /** As `atMost`, with the peer's beside it. */
  beside(name: string, theirs: number, ours: number, unit: string, { floor, goal }: Goal): void {
    this.#row(name, `${shown(theirs)} ${unit}`, `${shown(ours)} ${unit}`, "", `floor ${floor}, goal ${goal} ${unit}`, verdict(ours <= floor, ours <= goal));
  }

  atMost(name: string, value: number, unit: string, { floor, goal }: Goal): void {
    this.#row(name, "", `${shown(value)} ${unit}`, "", `floor ${floor}, goal ${goal} ${unit}`, verdict(value <= floor, value <= goal));
  }

  #row(name: string, theirs: string, ours: string, ratio: string, goal: string, verdict: string): void {
    console.log(`  ${name.padEnd(40)} ${theirs.padStart(12)} ${ours.padStart(12)}  ${ratio.padEnd(11)} ${goal.padEnd(24)} ${verdict}`);
  }
}

const shown = (value: number): string => (value < 10 ? value.toFixed(2) : value.toFixed(0));
const verdict = (floor: boolean, goal: boolean): string => (goal ? "goal met" : floor ? "floor met" : "MISSED");
