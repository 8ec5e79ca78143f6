import { DiskError } from "../errors.ts";
import { bochs } from "./bochs/index.ts";
import { cloop } from "./cloop/index.ts";
import { cow } from "./cow/index.ts";
import { dmg } from "./dmg/index.ts";
import type { Format } from "./format.ts";
import { parallels } from "./parallels/index.ts";
import { qcow } from "./qcow1/index.ts";
import { qcow2 } from "./qcow2/index.ts";
import { qed } from "./qed/index.ts";
import { raw } from "./raw/index.ts";
import { vdi } from "./vdi/index.ts";
import { vhdx } from "./vhdx/index.ts";
import { vpc } from "./vpc/index.ts";
import { vmdk } from "./vmdk/index.ts";

/** Every format, in the order of probing; raw is what nothing else claims. */
export const FORMATS: readonly Format[] = [qcow2, qcow, qed, vdi, vmdk, parallels, vpc, vhdx, cow, bochs, cloop, dmg, raw];

export function formatNamed(name: string): Format {
  const format = FORMATS.find((one) => one.name === name);
  if (format === undefined) throw new DiskError("unsupported", `unknown format '${name}'; known are ${FORMATS.map((one) => one.name).join(", ")}`, { format: name });
  return format;
}

/** The format whose magic `head` (the first bytes of a file) bears; raw if none. */
export function probe(head: Uint8Array): Format {
  return FORMATS.find((format) => format.probe(head)) ?? raw;
}

/** The format with its magic at the end that a file of this name may be of. */
export function probedAtEnd(name: string): (Format & Required<Pick<Format, "trailer">>) | undefined {
  const path = name.toLowerCase().replace(/[?#].*/, "");
  return FORMATS.find((format): format is Format & Required<Pick<Format, "trailer">> => format.trailer !== undefined && path.endsWith(format.trailer.suffix));
}
