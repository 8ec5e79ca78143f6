import type { Reporter, TestCase } from "vitest/node";

/** Where `CI` is set a skipped test is a failed run. */
export default class NothingSkipped implements Reporter {
  readonly #skipped: string[] = [];

  onTestCaseResult(test: TestCase): void {
    if (test.result().state === "skipped") this.#skipped.push(test.fullName);
  }

  onTestRunEnd(): void {
    if (this.#skipped.length === 0) return;
    console.error(`\n${this.#skipped.length} skipped:\n  ${this.#skipped.join("\n  ")}`);
    if (process.env["CI"]) process.exitCode = 1;
  }
}
