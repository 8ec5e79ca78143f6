import { afterEach } from "vitest";
import { Machine, type MachineConfig } from "../../emulator/index.ts";
import { nodeWasm } from "../../emulator/node.ts";
import { debian } from "../../guests/catalog.ts";
import { biosImages } from "./guests.ts";

const machines: Machine[] = [];

/** Gone after the test, unless `keep`. */
export async function makeMachine(config: Partial<MachineConfig>): Promise<Machine> {
  const machine = await Machine.create({ ...biosImages(), wasm: await nodeWasm(), ...config });
  machines.push(machine);
  return machine;
}

/** Call it in a `describe`: each test's machines end with it. */
export function destroyMachinesAfterEach(): void {
  afterEach(async () => {
    // A machine whose disks fail cannot be flushed; that is the test's business, not this hook's.
    for (const machine of machines.splice(0)) await machine.destroy().catch(() => {});
  });
}

/** Runs a shell command in the debian guest; its output, without the echo. */
export async function shell(machine: Machine, command: string, timeout = 120_000): Promise<string> {
  machine.serial.send(`${command}\n`);
  const output = await machine.waitForSerial(`\n${debian.prompt}`, timeout);
  return output.replaceAll("\r", "").split("\n").slice(1, -1).join("\n").trim();
}
