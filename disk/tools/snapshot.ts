import { sourceAccess, sourceFormat } from "./source.ts";
import { onlyFile, SHARED } from "./arguments.ts";
import { describe } from "./images.ts";
import { snapshotTable } from "./info.ts";
import type { Call, Verb } from "./verb.ts";

const CHANGES = "disk86 only lists internal snapshots so far: use qemu-img snapshot for this";

export const snapshot: Verb = {
  usage: "-l [-f FMT] [-q] [-U] FILE",
  about: "Lists the internal snapshots of an image. `convert -l NAME` copies the disk of one.",
  examples: [["disk86 snapshot -l disk.qcow2", "which there are"]],
  options: [
    { name: "list", short: "l", help: "list them" },
    { name: "apply", short: "a", value: "SNAPSHOT", help: "", refused: CHANGES },
    { name: "create", short: "c", value: "SNAPSHOT", help: "", refused: CHANGES },
    { name: "delete", short: "d", value: "SNAPSHOT", help: "", refused: CHANGES },
    SHARED.format, SHARED.quiet, SHARED.forceShare, SHARED.imageOpts, SHARED.object,
  ],
  run: runSnapshot,
};

/** Without an action nothing is done, as qemu-img does. */
async function runSnapshot(call: Call): Promise<number> {
  const file = onlyFile(call);
  const [image] = await describe(file, sourceFormat(call), await sourceAccess(call), false), snapshots = image?.info.snapshots ?? [];
  if (call.has("list") && snapshots.length > 0) call.output.out(["Snapshot list:", ...snapshotTable(snapshots), ""].join("\n"));
  return 0;
}
