/** One of every `n` of a table's lines, beginning with number `at`, so that several lists of the same lines share them out; all with LONG=1. */
export function inTurns<T>(lines: readonly T[], n: number, at: number): readonly T[] {
  return process.env["LONG"] ? lines : lines.filter((_, index) => index % n === at % n);
}
