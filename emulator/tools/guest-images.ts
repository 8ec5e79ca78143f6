import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { CommandError, type Output } from "../../disk/tools/verb.ts";
import { bios, findGuest, type Guest } from "../../guests/catalog.ts";
import { GUESTS, PACKAGE } from "./paths.ts";

/** guests/build.sh ends so on a machine that cannot build guests; it says why. */
const CANNOT_BUILD = 3;

/** The guest of the catalogue that IMAGE names, unless there is a file of that name. */
export function guestOf(image: string): Guest | undefined {
  return existsSync(image) ? undefined : findGuest(image);
}

export function guestImage(guest: Guest): string {
  return `${GUESTS}${guest.image}`;
}

/** The guest's image, built first if it is missing. */
export async function builtGuest(guest: Guest, output: Output): Promise<string> {
  const image = guestImage(guest);
  if (existsSync(image)) return image;
  output.error(`disk86: building the guest '${guest.name}' first: about ${guest.buildSeconds} s\n`);
  const status = await runBuild(guest.name);
  if (status === CANNOT_BUILD) throw new CommandError(`the guest '${guest.name}' cannot be built on this machine (see above): build it on a Debian machine, or boot an image of your own`, CANNOT_BUILD);
  if (status !== 0 || !existsSync(image)) throw new CommandError(`the guest '${guest.name}' could not be built: see above; 'bash guests/build.sh ${guest.name}' tries again`);
  return image;
}

/** Runs guests/build.sh, which shows its own progress; its exit code. */
function runBuild(name: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn("bash", [`${PACKAGE}guests/build.sh`, name], { stdio: ["ignore", process.stderr, process.stderr] });
    child.on("error", (error) => reject(new CommandError("guests are built by a bash script, and there is no bash here: boot an image of your own", 1, { cause: error })));
    child.on("close", (code) => resolve(code ?? 1));
  });
}

/** The two BIOS images: those named, or those built with the guests. */
export function readBios(system: string | undefined, vga: string | undefined): { readonly bios: Uint8Array; readonly vgaBios: Uint8Array } {
  return { bios: readNamed(system ?? `${GUESTS}${bios.system}`, system === undefined), vgaBios: readNamed(vga ?? `${GUESTS}${bios.vga}`, vga === undefined) };
}

function readNamed(path: string, ours: boolean): Uint8Array {
  if (existsSync(path)) return readFileSync(path);
  const cure = ours ? "'bash guests/build.sh bios' makes it from Debian's seabios package, or name your own with --bios and --vga-bios" : "check the path";
  throw new CommandError(`no BIOS at ${path}: ${cure}`);
}
