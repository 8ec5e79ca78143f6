import { type ChildProcess, spawn } from "node:child_process";
import { connect } from "node:net";
import { join } from "node:path";
import { afterAll } from "vitest";
import { findTool } from "./tools.ts";

let sockets = 0;
const running: ChildProcess[] = [];
afterAll(() => { for (const one of running.splice(0)) one.kill("SIGKILL"); });

/** The name of a Unix socket that nobody has yet, in `folder`. */
export function socketPath(folder: string): string {
  return join(folder, `nbd${++sockets}.sock`);
}

export function nbdUrl(socket: string, name = ""): string {
  return `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`;
}

/** A server of somebody else's. */
export interface NbdPeer { readonly url: string; readonly socket: string; readonly child: ChildProcess; stop(): Promise<void> }

/** qemu-nbd, for any number of clients, until it is stopped. */
export function startQemuNbd(folder: string, ...args: string[]): Promise<NbdPeer> {
  const socket = socketPath(folder);
  return start(socket, "qemu-nbd", ["-t", "-e", "8", "-k", socket, ...args]);
}

/** nbdkit, in the foreground: `args` are filters, the plugin and its parameters. */
export function startNbdkit(folder: string, ...args: string[]): Promise<NbdPeer> {
  const socket = socketPath(folder);
  return start(socket, "nbdkit", ["-f", "--exit-with-parent", "-U", socket, ...args]);
}

/** Whether somebody listens: the socket is there a moment earlier. */
export function listens(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket, () => {
      probe.destroy();
      resolve(true);
    });
    probe.once("error", () => { resolve(false); });
  });
}

async function start(socket: string, tool: string, args: readonly string[]): Promise<NbdPeer> {
  const child = spawn(findTool(tool) ?? tool, args, { stdio: ["ignore", "ignore", "pipe"] });
  running.push(child);
  let said = "";
  child.stderr.on("data", (bytes: Buffer) => { said += bytes.toString(); });
  const ended = new Promise<void>((resolve) => { child.once("exit", () => { resolve(); }); });
  for (let tries = 0; !(await listens(socket)); tries++) {
    if (tries > 200 || child.exitCode !== null) throw new Error(`${tool} ${args.join(" ")} does not start: ${said}`);
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
  const stop = async (): Promise<void> => {
    child.kill();
    await ended;
  };
  return { url: nbdUrl(socket), socket, child, stop };
}
