import { test } from "vitest";
import { Random } from "./generator.ts";

export { Random };

/** The seed of every run where `CI` is set: what lands does not hang on a throw of the dice. Everyone else looks further. */
const CI_SEED = 86;

/** The seed for this run: `SEED` from the environment, or a fresh one. */
export function freshSeed(): number {
  const wanted = process.env["SEED"] ?? (process.env["CI"] ? String(CI_SEED) : undefined);
  return wanted === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(wanted) >>> 0;
}

/** Runs `body` with a seeded generator; a failure's message names the seed that repeats it. */
export async function withSeed<T>(body: (random: Random) => T | Promise<T>, seed = freshSeed()): Promise<T> {
  try {
    return await body(new Random(seed));
  } catch (error) {
    if (error instanceof Error) error.message += `\n(SEED=${seed} repeats this)`;
    throw error;
  }
}

/** A test of random data or order: `SEED=... vitest` repeats a failure. `timeout` is in milliseconds. */
export function seeded(name: string, body: (random: Random) => void | Promise<void>, timeout?: number): void {
  // oxlint-disable-next-line vitest/expect-expect, vitest/valid-title -- name and assertions are the caller's
  test(name, () => withSeed(body), timeout);
}
