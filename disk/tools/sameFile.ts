import { statSync } from "node:fs";
import type { Disk } from "../disk.ts";
import { isHttp } from "../gate.node.ts";
import { isNbd, nbdTitle, parseNbdName } from "../names/nbd.ts";
import { CommandError } from "./verb.ts";

/** Without locks nothing else would keep it from emptying what it is about to read. */
export function refuseSame(disks: readonly Disk[], out: string): void {
  const target = isHttp(out) ? undefined : statSync(out, { throwIfNoEntry: false }), address = isNbd(out) ? nbdTitle(parseNbdName(out)) : undefined;
  if (target === undefined && address === undefined) return;
  for (const storage of disks.flatMap(({ chain }) => chain.flatMap((image) => [image.storage, ...image.files ?? []]))) {
    const one = isHttp(storage.name) ? undefined : statSync(storage.name, { throwIfNoEntry: false });
    if (storage.name === address || (one !== undefined && one.dev === target?.dev && one.ino === target.ino)) throw new CommandError(`${out}: is what is to be copied, or what that stands on: choose another name`);
  }
}
