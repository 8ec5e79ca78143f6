import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { requireTool, tryTool } from "../support/tools.ts";
import { allScenarios } from "./allScenarios.ts";
import type { Scenario } from "./scenario.ts";
import { type CrashState, crashStates } from "./states.ts";

const qemu = requireTool("qemu-img", "qemu-io");
const folder = tempFolder();

/** One state of each scenario is also shown to QEMU. */
const SAMPLE = 77;

function qemuAgrees({ bytes, data }: CrashState): void {
  const path = join(folder, "state"), second = join(folder, "data");
  writeFileSync(path, bytes);
  if (data !== undefined) writeFileSync(second, data);
  const named = data === undefined ? ["-f", "qcow2", path] : ["--image-opts", `driver=qcow2,file.driver=file,file.filename=${path},data-file.driver=raw,data-file.file.driver=file,data-file.file.filename=${second}`];
  writeFileSync(join(folder, "base"), new Uint8Array(512));
  // 3: leaks, and nothing worse.
  const { status, stdout, stderr } = tryTool("qemu-img", ["check", ...named]);
  expect([0, 3], `${stdout}${stderr}`).toContain(status);
}

/** The first state that is not as it should be, and how many were tried. */
function firstComplaint(scenario: Scenario): { complaint: string | undefined; states: number } {
  const { cut, judge } = scenario.start();
  let states = 0;
  for (const state of crashStates(cut)) {
    states++;
    if (qemu && states === SAMPLE && scenario.format === "qcow2") qemuAgrees(state);
    const text = `at ${state.at} of ${cut.log.length}, ${state.text}`, complaint = judge(state);
    if (complaint !== undefined) return { complaint: `${complaint} (${text})`, states };
  }
  return { complaint: undefined, states };
}

describe("after a power cut at any step, losing any unflushed writes, the image is sound and holds what was flushed", () => {
  test.each(allScenarios(folder).map((scenario) => [scenario.name, scenario] as const))("%s", (_, scenario) => {
    const { complaint, states } = firstComplaint(scenario);
    expect(complaint).toBeUndefined();
    expect(states).toBeGreaterThan(3);
  });
});
