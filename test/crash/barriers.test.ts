import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { allScenarios } from "./allScenarios.ts";
import type { Scenario } from "./scenario.ts";
import { crashStates } from "./states.ts";

const scenarios = allScenarios(tempFolder());

/** Every name in a `flush(storage, "name")` of the sources; those of a repair are tested with it. */
function namesInSources(folder: string): Set<string> {
  const names = new Set<string>();
  for (const file of readdirSync(folder, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".ts") && !/check-|repair/.test(name))) {
    for (const [, name] of readFileSync(join(folder, file), "utf8").matchAll(/\bflush\(\s*[\w.#]+,\s*"([^"]+)"/g)) names.add(name ?? "");
  }
  return names;
}

const IN_SOURCES = [...namesInSources(join(import.meta.dirname, "../../disk"))].sort();
const seen = new Map<string, Scenario[]>();
for (const scenario of scenarios) {
  for (const name of scenario.start().cut.barriers) seen.set(name, [...(seen.get(name) ?? []), scenario]);
}

/** Which scenario first notices that the barrier is gone, and how. */
function killer(barrier: string): string | undefined {
  for (const scenario of seen.get(barrier) ?? []) {
    const { cut, judge } = scenario.start(new Set([barrier]));
    for (const state of crashStates(cut)) {
      const complaint = judge(state);
      if (complaint !== undefined) return `${scenario.name}: ${complaint}`;
    }
  }
  return undefined;
}

test("the names of barriers that the scenarios meet are those that stand in the sources", () => {
  expect(IN_SOURCES.length).toBeGreaterThan(10);
  expect([...seen.keys()].sort()).toEqual(IN_SOURCES);
});

describe("without the barrier some power cut loses or breaks something", () => {
  test.each(IN_SOURCES)("%s", (barrier) => {
    const by = killer(barrier);
    expect(by).toBeDefined();
    console.log(`${barrier} <- ${by}`);
  });
});
