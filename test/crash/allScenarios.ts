import { requireTool } from "../support/tools.ts";
import { BACKING } from "./backingScenarios.ts";
import { COW } from "./cowScenarios.ts";
import { EXTERNAL } from "./externalScenarios.ts";
import { NBD } from "./nbdScenarios.ts";
import { PARALLELS } from "./parallelsScenarios.ts";
import { QCOW } from "./qcow1Scenarios.ts";
import { OWN, qemuScenarios } from "./qcow2Scenarios.ts";
import { QED } from "./qedScenarios.ts";
import type { Scenario } from "./scenario.ts";
import { TASKS } from "./taskScenarios.ts";
import { VDI } from "./vdiScenarios.ts";
import { VHDX } from "./vhdxScenarios.ts";
import { VPC } from "./vpcScenarios.ts";
import { VMDK } from "./vmdkScenarios.ts";

/** Every scenario; those that QEMU begins, in `folder`, only where its tools are. */
export function allScenarios(folder: string): readonly Scenario[] {
  const begunByQemu = requireTool("qemu-img", "qemu-io") ? qemuScenarios(folder) : [];
  return [...TASKS, ...BACKING, ...OWN, ...EXTERNAL, ...COW, ...VDI, ...VPC, ...VHDX, ...VMDK, ...QCOW, ...QED, ...NBD, ...PARALLELS, ...begunByQemu];
}
