import type { InfoObject, SnapshotInfo } from "../formats/info.ts";
import { onlyFile, outputFormat, SHARED } from "./arguments.ts";
import { describe, type ImageDescription } from "./images.ts";
import { toJson } from "./json.ts";
import { listing } from "./lines.ts";
import { formatSize, integer } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import type { Call, Verb } from "./verb.ts";

const NANO = 1_000_000_000n;

export const info: Verb = {
  usage: "[-f FMT] [--output=human|json] [--backing-chain] [-U] FILE|URL",
  about: "Tells what an image is: format, sizes, backing file, snapshots, features. Reads its header only.",
  examples: [
    ["disk86 info disk.qcow2", "what it is"],
    ["disk86 info --backing-chain --output=json top.qcow2", "it and all it stands on, for programs"],
    ["disk86 info https://example.org/disk.qcow2", "an image on a web server, without downloading it"],
  ],
  options: [SHARED.format, SHARED.output, { name: "backing-chain", help: "also tell of the images it stands on" }, SHARED.forceShare, SHARED.imageOpts, SHARED.object],
  run: runInfo,
};

async function runInfo(call: Call): Promise<number> {
  const file = onlyFile(call), output = outputFormat(call), chain = call.has("backing-chain");
  const images = await describe(file, sourceFormat(call), await sourceAccess(call), chain);
  if (output === "human") call.output.out(images.map(toText).join("\n"));
  else call.output.out(`${toJson(chain ? images.map(toObject) : toObject(images[0] as ImageDescription))}\n`);
  return 0;
}

/** The keys of QEMU's ImageInfo. */
function toObject({ name, format, info, allocated, fullBackingName }: ImageDescription): InfoObject {
  const { size, clusterSize, encrypted, dirty, backing, snapshots = [], specific } = info;
  return {
    filename: name, format, "virtual-size": size, ...(dirty === null ? {} : { "dirty-flag": dirty ?? false }),
    ...(allocated === undefined ? {} : { "actual-size": allocated }),
    ...(clusterSize === undefined ? {} : { "cluster-size": clusterSize }),
    ...(encrypted === true ? { encrypted } : {}),
    ...(backing === undefined ? {} : { "backing-filename": backing.file }),
    ...(fullBackingName === undefined ? {} : { "full-backing-filename": fullBackingName }),
    ...(backing?.format === undefined ? {} : { "backing-filename-format": backing.format }),
    ...(snapshots.length === 0 ? {} : { snapshots: snapshots.map(snapshotObject) }),
    ...(specific === undefined ? {} : { "format-specific": specific }),
  };
}

function snapshotObject({ id, name, vmStateSize, seconds, nanoseconds, vmClock, icount }: SnapshotInfo): InfoObject {
  return {
    id, name, "vm-state-size": vmStateSize, "date-sec": seconds, "date-nsec": nanoseconds,
    "vm-clock-sec": vmClock / NANO, "vm-clock-nsec": vmClock % NANO, ...(icount === undefined ? {} : { icount }),
  };
}

function toText({ name, format, info, allocated, fullBackingName }: ImageDescription): string {
  const { size, clusterSize, encrypted, dirty, backing, snapshots = [], specific } = info;
  const lines = [
    `image: ${name}`,
    `file format: ${format}`,
    `virtual size: ${formatSize(size)} (${integer(size)} bytes)`,
    `disk size: ${allocated === undefined ? "unavailable" : formatSize(allocated)}`,
    encrypted === true ? "encrypted: yes" : undefined,
    clusterSize === undefined ? undefined : `cluster_size: ${clusterSize}`,
    dirty === true ? "cleanly shut down: no" : undefined,
    backing === undefined ? undefined : `backing file: ${backing.file}${fullBackingName === backing.file ? "" : ` (${fullBackingName === undefined ? "cannot determine actual path" : `actual path: ${fullBackingName}`})`}`,
    backing?.format === undefined ? undefined : `backing file format: ${backing.format}`,
    ...(snapshots.length === 0 ? [] : ["Snapshot list:", ...snapshotTable(snapshots)]),
  ].filter((line) => line !== undefined);
  const data = specific?.["data"];
  return `${lines.join("\n")}\n${data === undefined ? "" : `Format specific information:\n${listing(data, 1)}`}`;
}

/** As `qemu-img snapshot -l` prints it, too. */
export function snapshotTable(snapshots: readonly SnapshotInfo[]): string[] {
  const head = `${"ID".padEnd(10)}${"TAG".padEnd(17)}${"VM SIZE".padStart(8)}${"DATE".padStart(20)}${"VM CLOCK".padStart(13)}${"ICOUNT".padStart(11)}`;
  return [head, ...snapshots.map(({ id, name, vmStateSize, seconds, vmClock, icount }) =>
    `${id.padEnd(9)} ${name.padEnd(16)} ${formatSize(vmStateSize).padStart(8)}${date(seconds).padStart(20)}${clock(vmClock).padStart(13)}${String(icount ?? "").padStart(11)}`)];
}

/** `2026-11-21 00:39:30`, in the user's time zone. */
function date(seconds: number): string {
  const at = new Date(seconds * 1000), two = (value: number): string => String(value).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

function clock(nanoseconds: bigint): string {
  const all = nanoseconds / NANO, two = (value: bigint): string => String(value).padStart(2, "0");
  return `${two(all / 3600n)}:${two((all / 60n) % 60n)}:${two(all % 60n)}.${String((nanoseconds / 1_000_000n) % 1000n).padStart(3, "0")}`;
}
