import { bootsector } from "./bootsector/guest.ts";
import { debian } from "./debian/guest.ts";
import type { Guest } from "./guest.ts";
import { tiny } from "./tiny/guest.ts";

export type { Guest } from "./guest.ts";
export { bootsector, debian, tiny };

/** Every guest that `bash guests/build.sh` builds; the first is the one to offer first. */
export const guests: readonly Guest[] = [tiny, debian, bootsector];

/** The BIOS images that every machine boots by, relative to guests/out. */
export const bios = { system: "bios/seabios.bin", vga: "bios/vgabios.bin" } as const;

/** Options of guests/build.sh that change an image, and so its name. */
export interface Variant {
  readonly kernel?: "lz4" | "own" | "stock";
  /** Debian packages that were added. */
  readonly with?: readonly string[];
}

/** The image of a guest built with options, relative to guests/out: `debian-with-fio-sqlite3-own.qcow2`. */
export function variantImage(guest: Guest, { kernel = "lz4", with: added = [] }: Variant): string {
  const packages = [...new Set(added)].sort();
  const suffix = [...(packages.length > 0 ? ["with", ...packages] : []), ...(kernel === "lz4" ? [] : [kernel])];
  return [guest.image.replace(/\.qcow2$/, ""), ...suffix].join("-") + ".qcow2";
}

export function findGuest(name: string): Guest | undefined {
  return guests.find((guest) => guest.name === name);
}
