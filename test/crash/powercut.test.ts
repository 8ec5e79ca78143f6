import { describe, expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { OWN, qemuScenarios } from "./qcow2Scenarios.ts";
import type { Scenario } from "./scenario.ts";
import { crashStates } from "./states.ts";

const qemu = requireTool("qemu-img", "qemu-io");
const folder = tempFolder();

/** The first state that is not as it should be, and how many were tried. */
function firstComplaint(scenario: Scenario): { complaint: string | undefined; states: number } {
  const { cut, judge } = scenario.start();
  let states = 0;
  for (const state of crashStates(cut)) {
    states++;
    const text = `at ${state.at} of ${cut.log.length}, ${state.text}`, complaint = judge(state);
    if (complaint !== undefined) return { complaint: `${complaint} (${text})`, states };
  }
  return { complaint: undefined, states };
}

describe("after a power cut at any step, losing any unflushed writes, the image is sound and holds what was flushed", () => {
  const scenarios = [...OWN, ...(qemu ? qemuScenarios(folder) : [])];
  test.each(scenarios.map((scenario) => [scenario.name, scenario] as const))("%s", (_, scenario) => {
    const { complaint, states } = firstComplaint(scenario);
    expect(complaint).toBeUndefined();
    expect(states).toBeGreaterThan(20);
  });
});
