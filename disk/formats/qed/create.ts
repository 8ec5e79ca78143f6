import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { CreateValues, Creation } from "../creation.ts";
import { FEATURE, HeaderFields, isPowerOfTwo, LIMITS, MAGIC, maxSize } from "./header.ts";

export interface QedCreateOptions {
  /** Guest size in bytes; rounded up to a multiple of 512. */
  readonly size: number;
  /** A power of two from 4 KiB to 64 MiB; default 64 KiB. */
  readonly clusterSize?: number | undefined;
  /** Clusters of one table: 1, 2, 4, 8 or 16; default 4. */
  readonly tableSize?: number | undefined;
  /** As it is to stand in the image. */
  readonly backingFile?: string | undefined;
  /** Only "raw" is recorded: the format can say nothing else but that the base is to be probed. */
  readonly backingFormat?: string | undefined;
}

/** Makes `file`, whatever it held, an empty qed image: header, L1. The header comes last. */
export function* createQed(file: Storage, options: QedCreateOptions): Task {
  const { header, clusterSize, tableBytes, name } = layout(options);
  yield truncate(file, 0);
  yield truncate(file, clusterSize + tableBytes);
  if (name.length > 0) yield write(file, header.length, name);
  yield flush(file, "tables before the header that points at them");
  yield write(file, 0, header);
  yield flush(file, "the new image");
}

interface Layout { readonly header: Uint8Array; readonly name: Uint8Array; readonly clusterSize: number; readonly tableBytes: number }

function layout({ size, clusterSize = 65536, tableSize = 4, backingFile = "", backingFormat }: QedCreateOptions): Layout {
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "qed", operation: "create" }); };
  const { min, max } = LIMITS.clusterSize, bytes = Math.ceil(size / 512) * 512, name = encodeText(backingFile);
  if (!isPowerOfTwo(clusterSize) || clusterSize < min || clusterSize > max) refuse(`QED cluster size must be within range [${min}, ${max}] and power of 2`);
  if (!isPowerOfTwo(tableSize) || tableSize < 1 || tableSize > LIMITS.tableSize) refuse(`QED table size must be within range [1, ${LIMITS.tableSize}] and power of 2`);
  if (!(size >= 0)) refuse(`${size} is no size of a disk`);
  if (bytes > maxSize(clusterSize, tableSize)) refuse(`a QED image with this cluster and table size has at most ${maxSize(clusterSize, tableSize)} bytes`);
  if (!Number.isSafeInteger(bytes)) refuse(`a disk of ${size} bytes is larger than disk86 can address (8 PiB)`);
  if (name.length > LIMITS.backingName) refuse(`the backing file name is too long: ${name.length} bytes; at most ${LIMITS.backingName} fit`);
  const noProbe = backingFormat === "raw" ? FEATURE.noProbe : 0n;
  const header = HeaderFields.format({
    magic: MAGIC, clusterSize, tableSize, headerSize: 1, features: name.length === 0 ? 0n : FEATURE.backingFile | noProbe, compatible: 0n, autoclear: 0n,
    l1Offset: clusterSize, size: bytes, backingOffset: name.length === 0 ? 0 : HeaderFields.size, backingLength: name.length,
  });
  return { header, name, clusterSize, tableBytes: tableSize * clusterSize };
}

const PREALLOCATION: ReadonlySet<string> = new Set(["off", "falloc", "full"]);

export const qedCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "backing_file", type: "string", help: "File name of a base image" },
    { name: "backing_fmt", type: "string", help: "Image format of the base image" },
    { name: "cluster_size", type: "size", help: "Cluster size (in bytes)", initial: "65536" },
    { name: "table_size", type: "size", help: "L1/L2 table size (in clusters)" },
    { name: "preallocation", type: "string", help: "Preallocation mode (allowed values: off, falloc, full)" },
  ],
  plan(values) {
    const options = toOptions(values);
    layout(options);
    return (into) => createQed(into, options);
  },
};

function toOptions({ size, backing_file: file, backing_fmt: format, cluster_size: clusterSize, table_size: tableSize, preallocation = "off" }: CreateValues): QedCreateOptions {
  const refuse = (kind: "invalid-argument" | "unsupported", what: string): never => { throw new DiskError(kind, what, { format: "qed", operation: "create" }); };
  if (!PREALLOCATION.has(String(preallocation))) refuse("invalid-argument", `Parameter 'preallocation' does not accept value '${String(preallocation)}'`);
  if (preallocation !== "off") refuse("unsupported", `disk86 cannot make images with preallocation=${String(preallocation)}: leave that out, or make the image with qemu-img`);
  if (format !== undefined && file === undefined) refuse("invalid-argument", "Backing format cannot be used without backing file");
  return {
    size: Number(size), clusterSize: Number(clusterSize), tableSize: tableSize === undefined ? undefined : Number(tableSize),
    backingFile: file === undefined ? undefined : String(file), backingFormat: format === undefined ? undefined : String(format),
  };
}
