import { DiskError } from "../../disk/errors.ts";

const lockName = (id: string): string => `disk86 machine ${id}`;
/** A tab that was just reloaded or closed may hold its lock for a moment more. */
const PATIENCE = 1500;

/** Held from before a machine's files are opened until they are closed. */
export interface MachineLock { release(): void }

/** Takes the one lock of a machine. Rejects as `locked` while another tab runs it: its disk is in use, not gone. */
export function lockMachine(id: string, patience = PATIENCE): Promise<MachineLock> {
  return new Promise((resolve, reject) => {
    const held = (): Promise<void> => new Promise<void>((release) => resolve({ release }));
    navigator.locks.request(lockName(id), { signal: AbortSignal.timeout(patience) }, held).catch((cause: unknown) => {
      reject(new DiskError("locked", "this machine is open in another tab or window, and its changes are safe there", { operation: "open" }, cause));
    });
  });
}

/** The machines that are open in some tab. */
export async function lockedMachines(): Promise<(id: string) => boolean> {
  const { held = [] } = await navigator.locks.query();
  const names = new Set(held.map(({ name }) => name));
  return (id) => names.has(lockName(id));
}
