import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bios, type Guest } from "../../guests/catalog.ts";
import { requireTool, runTool } from "./tools.ts";

const GUESTS = join(import.meta.dirname, "../../guests");
const OUT = join(GUESTS, "out");

/**
 * Whether these guests, and the BIOS, are there; they are built if not. Where that is impossible it is said aloud, and
 * is an error under CI: `describe.skipIf(!requireGuests(tiny))`.
 */
export function requireGuests(...guests: readonly Guest[]): boolean {
  const missing = [...new Set([...guests.flatMap(({ files }) => files), bios.system, bios.vga])].filter((file) => !existsSync(join(OUT, file)));
  if (missing.length === 0) return requireTool("qemu-img");
  const names = guests.length > 0 ? guests.map(({ name }) => name) : ["bios"];
  const { status, stderr } = spawnSync("bash", [join(GUESTS, "build.sh"), ...names], { encoding: "utf8" });
  if (status === 0) return requireTool("qemu-img");
  const message = `needs the guests ${names.join(", ")}: guests/build.sh ended with ${status}: ${stderr.slice(-300)}`;
  if (process.env["CI"]) throw new Error(message);
  console.warn(`SKIPPED: ${message}`);
  return false;
}

export function guestFile(name: string): string {
  return join(OUT, name);
}

export function biosImages(): { bios: Uint8Array; vgaBios: Uint8Array } {
  return { bios: readFileSync(guestFile(bios.system)), vgaBios: readFileSync(guestFile(bios.vga)) };
}

/** A guest's disk as a raw file in `folder`. */
export function rawGuest(guest: Guest, folder: string): string {
  const raw = join(folder, `${guest.name}.raw`);
  if (!existsSync(raw)) runTool("qemu-img", ["convert", "-O", "raw", guestFile(guest.image), raw]);
  return raw;
}
