import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const FOLDERS = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/local/sbin", "/usr/sbin", "/sbin"];

/** Where a program is; the variable `CHROMIUM`, `QEMU_IMG`, ... overrides. `undefined`: it is not installed. */
export function findTool(name: string): string | undefined {
  const override = process.env[name.toUpperCase().replaceAll("-", "_")];
  return [...(override ? [override] : []), ...FOLDERS.map((folder) => join(folder, name))].find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether all these programs are installed, for `describe.skipIf(!requireTool("qemu-img"))`. A missing one is said
 * aloud; where the variable `CI` is set nothing may be skipped, so there it is an error.
 */
export function requireTool(...names: string[]): boolean {
  const missing = names.filter((name) => findTool(name) === undefined);
  if (missing.length === 0) return true;
  const message = `needs ${missing.join(", ")}: not installed`;
  if (process.env["CI"]) throw new Error(message);
  console.warn(`SKIPPED: ${message}`);
  return false;
}

/** How a program ended. */
export interface ToolResult { readonly status: number | null; readonly stdout: string; readonly stderr: string }

/** qemu-img times its own hashing when it makes a LUKS image, and gives up where the machine's clock of CPU time stood still. */
const UNLUCKY = "Unable to get accurate CPU usage";

/** Runs an installed program to its end, at most `timeout` ms; a failure is a result, not an exception. */
export function tryTool(name: string, args: readonly string[], timeout = 60_000, tries = 10): ToolResult {
  const { status, stdout, stderr, error } = spawnSync(findTool(name) ?? name, args, { encoding: "utf8", timeout, maxBuffer: 64 << 20 });
  if (error) throw error;
  return stderr.includes(UNLUCKY) && tries > 1 ? tryTool(name, args, timeout, tries - 1) : { status, stdout, stderr };
}

/** Runs an installed program that must succeed; returns what it wrote to standard output. */
export function runTool(name: string, args: readonly string[], timeout?: number): string {
  const { status, stdout, stderr } = tryTool(name, args, timeout);
  if (status !== 0) throw new Error(`${name} ${args.join(" ")} ended with ${status}:\n${stderr || stdout}`);
  return stdout;
}
