import { DiskError } from "../errors.ts";
import type { CheckOptions, CheckResult } from "../formats/check.ts";
import type { Format } from "../formats/format.ts";
import type { InfoObject } from "../formats/info.ts";
import { nodeGate } from "../gate.node.ts";
import type { Storage } from "../storage.ts";
import { close, type Task } from "../task.ts";
import { checkSourceCache, onlyFile, outputFormat, SHARED } from "./arguments.ts";
import { openImageFile } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { toJson } from "./json.ts";
import { Progress } from "./progress.ts";
import { fixed } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, UsageError, type Verb } from "./verb.ts";

/** qemu-img's exit codes. */
const EXIT = { fine: 0, failed: 1, corrupt: 2, leaks: 3, unsupported: 63 } as const;
/** More than a page may take: who runs a command can stop it. Enough for 40 TiB in clusters of 64 KiB. */
const LIMITS = { memory: 2 * 2 ** 30, reads: 2 ** 40 };

export const check: Verb = {
  usage: "[-f FMT] [-r leaks|all] [--output=human|json] [-q] [-U] FILE",
  about: `Looks for contradictions in an image's tables, and mends them if asked to.
Exit codes: 0 all is well or was mended, 1 the check failed, 2 data may be corrupted, 3 space is wasted,
63 images of this format have nothing to check.`,
  examples: [
    ["disk86 check disk.qcow2", "look only"],
    ["disk86 check -r leaks disk.qcow2", "give back space that nothing uses"],
    ["disk86 check -r all disk.qcow2", "mend everything that can be mended: make a copy first"],
  ],
  options: [
    SHARED.format, { name: "repair", short: "r", value: "leaks|all", help: "what to mend" }, SHARED.output, SHARED.quiet, SHARED.forceShare,
    SHARED.sourceCache, SHARED.imageOpts, SHARED.object,
  ],
  run: runCheck,
};

async function runCheck(call: Call): Promise<number> {
  const file = onlyFile(call), output = outputFormat(call), repair = repairMode(call.value("repair")), quiet = call.has("quiet");
  checkSourceCache(call);
  const { format, result } = await checkFile(call, file, repair);
  if (result === undefined) throw new CommandError("This image format does not support checks", EXIT.unsupported);
  for (const { message } of result.findings) call.output.error(`${message}\n`);
  if (result.findingCount > result.findings.length) call.output.error(`... and ${result.findingCount - result.findings.length} more\n`);
  if (output === "json") call.output.out(`${toJson(toObject(file, format.name, result))}\n`);
  else if (!quiet) call.output.out(toText(result));
  if (result.checkErrors > 0) throw new CommandError("Check failed", EXIT.failed);
  if (result.corruptions > 0) return EXIT.corrupt;
  return result.leaks > 0 ? EXIT.leaks : EXIT.fine;
}

function repairMode(value: string | undefined): CheckOptions["repair"] {
  if (value !== undefined && value !== "leaks" && value !== "all") throw new UsageError(`Unknown option value for -r (expecting 'leaks' or 'all'): ${value}`);
  return value;
}

async function checkFile(call: Call, file: string, repair: CheckOptions["repair"]): Promise<{ format: Format; result: CheckResult | undefined }> {
  const access = await sourceAccess(call), progress = new Progress("checking", call.output);
  const { storage, format } = await openImageFile(file, sourceFormat(call), { ...access, writable: repair !== undefined });
  try {
    return { format, result: await runInterruptible(checkTask(storage, format, { repair, gate: nodeGate(access), limits: LIMITS, onProgress: progress.update })) };
  } catch (error) {
    throw DiskError.within(error, { path: file, format: format.name });
  } finally {
    progress.end();
  }
}

/** Only the image named: those it stands on need not be there. */
function* checkTask(storage: Storage, format: Format, options: CheckOptions): Task<CheckResult | undefined> {
  try {
    if (format.check === undefined || (options.repair !== undefined && format.repairs === false)) return undefined;
    return yield* format.check(storage, options);
  } finally {
    yield close(storage);
  }
}

/** The keys of QEMU's ImageCheck; what is 0 is left out. */
function toObject(filename: string, format: string, result: CheckResult): InfoObject {
  const optional = {
    "image-end-offset": result.imageEndOffset, corruptions: result.corruptions, leaks: result.leaks,
    "corruptions-fixed": result.corruptionsFixed, "leaks-fixed": result.leaksFixed, "total-clusters": result.totalClusters,
    "allocated-clusters": result.allocatedClusters, "fragmented-clusters": result.fragmentedClusters, "compressed-clusters": result.compressedClusters,
  };
  return { filename, format, "check-errors": result.checkErrors, ...Object.fromEntries(Object.entries(optional).filter(([, count]) => count !== 0)) };
}

function toText(result: CheckResult): string {
  const { corruptions, leaks, checkErrors, allocatedClusters: allocated, totalClusters: total } = result;
  const percent = (part: number, whole: number): string => `${fixed((part * 100) / whole, 2)}%`;
  const mended = result.leaksFixed + result.corruptionsFixed > 0;
  return [
    mended ? `The following inconsistencies were found and repaired:\n\n    ${result.leaksFixed} leaked clusters\n    ${result.corruptionsFixed} corruptions\n\nDouble checking the fixed image now...\n` : "",
    corruptions + leaks + checkErrors === 0 ? "No errors were found on the image.\n" : "",
    corruptions === 0 ? "" : `\n${corruptions} errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt it.\n`,
    leaks === 0 ? "" : `\n${leaks} leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n`,
    checkErrors === 0 ? "" : `\n${checkErrors} internal errors have occurred during the check.\n`,
    total === 0 || allocated === 0 ? "" : `${allocated}/${total} = ${percent(allocated, total)} allocated, ${percent(result.fragmentedClusters, allocated)} fragmented, ${percent(result.compressedClusters, allocated)} compressed clusters\n`,
    result.imageEndOffset === 0 ? "" : `Image end offset: ${result.imageEndOffset}\n`,
  ].join("");
}
