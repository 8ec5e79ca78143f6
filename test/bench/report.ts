/** One side of a comparison: `run` does the work once and answers how long it took, in ms. */
export interface Side { readonly name: string; run(): number | Promise<number> }

export interface Outcome { readonly name: string; readonly median: number; readonly all: readonly number[] }

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b), middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}

/** Runs the sides in turn, `rounds` times, each round in another order: the machine's moods fall on all of them. */
export async function interleave(sides: readonly Side[], rounds: number, onRun?: (name: string, ms: number) => void): Promise<Outcome[]> {
  const times = new Map(sides.map((side) => [side, [] as number[]]));
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < sides.length; i++) {
      const side = sides[(i + round) % sides.length];
      if (side === undefined) continue;
      const ms = await side.run();
      times.get(side)?.push(ms);
      onRun?.(side.name, ms);
    }
  }
  return sides.map((side) => ({ name: side.name, median: median(times.get(side) ?? []), all: times.get(side) ?? [] }));
}

/** Prints each outcome beside the first, the peer; `wanted` is the largest ratio (theirs is 1) that meets the goal. */
export function print(title: string, unit: string, outcomes: readonly Outcome[], wanted?: number): void {
  const peer = outcomes[0];
  console.log(`\n${title}`);
  for (const { name, median: value, all } of outcomes) {
    const ratio = peer === undefined ? NaN : value / peer.median;
    const verdict = wanted === undefined || name === peer?.name ? "" : ratio <= wanted ? `  (goal ${wanted}: met)` : `  (goal ${wanted}: MISSED)`;
    console.log(`  ${name.padEnd(46)} ${value.toFixed(value < 10 ? 3 : 0).padStart(9)} ${unit}  ratio ${ratio.toFixed(3)}${verdict}  [${all.map((one) => one.toFixed(one < 10 ? 3 : 0)).join(" ")}]`);
  }
}
