import { runProgram } from "../../disk/tools/program.ts";
import { DISK_VERBS } from "../../disk/tools/verbs.ts";
import { type ToolResult, tryTool } from "./tools.ts";

/** Runs a command line of disk86 in this process, in the current folder. */
export async function disk86(...args: string[]): Promise<ToolResult> {
  let stdout = "", stderr = "";
  const output = { out: (text: string) => { stdout += text; }, error: (text: string) => { stderr += text; }, watched: false };
  const status = await runProgram({ version: "test", verbs: DISK_VERBS }, args, output);
  return { status, stdout, stderr };
}

export function qemuImg(...args: string[]): ToolResult {
  return tryTool("qemu-img", args);
}
