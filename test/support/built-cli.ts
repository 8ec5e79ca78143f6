import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { afterAll } from "vitest";
import { build } from "vite";
import type { ToolResult } from "./tools.ts";

const ROOT = join(import.meta.dirname, "../..");

/** The command as it is shipped, built for this suite from the present sources. Call it in a `beforeAll`. */
export async function buildCli(): Promise<string> {
  // Two folders below the package, as dist/node is: the command finds the guests from where it lies.
  const outDir = mkdtempSync(join(ROOT, "dist/cli-"));
  await build({ configFile: join(ROOT, "emulator/tools/vite.config.ts"), logLevel: "error", build: { outDir } });
  folders.push(outDir);
  return join(outDir, "disk86.js");
}

const folders: string[] = [], children: ChildProcess[] = [];
// A test that failed may have left its program running.
afterAll(() => { for (const child of children) if (child.exitCode === null) child.kill("SIGKILL"); });
afterAll(() => { for (const folder of folders) rmSync(folder, { recursive: true, force: true }); });

export interface Started { readonly child: ChildProcess; readonly done: Promise<ToolResult>; readonly said: (text: string) => Promise<string> }

/** Starts a program of ours; `said` waits for text on its standard output, and answers all there is by then. */
export function startNode(script: string, args: readonly string[], cwd: string): Started {
  const child = spawn(process.execPath, [script, ...args], { cwd });
  children.push(child);
  let stdout = "", stderr = "", waiting: (() => void)[] = [];
  const wake = (): void => { for (const one of waiting.splice(0)) one(); };
  child.stdout.on("data", (bytes: Buffer) => { stdout += bytes.toString(); wake(); });
  child.stderr.on("data", (bytes: Buffer) => { stderr += bytes.toString(); });
  const done = new Promise<ToolResult>((resolve) => { child.on("close", (status) => { resolve({ status, stdout, stderr }); wake(); }); });
  const said = async (text: string): Promise<string> => {
    while (!stdout.includes(text)) {
      if (child.exitCode !== null) throw new Error(`it ended without saying ${text}:\n${stdout}\n${stderr}`);
      await new Promise<void>((resolve) => { waiting = [...waiting, resolve]; });
    }
    return stdout;
  };
  return { child, done, said };
}
