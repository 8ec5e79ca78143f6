import { DiskError } from "../../errors.ts";
import { type Progress, type Space, SPACES } from "../../image.ts";
import { noProgress } from "../../metadata/space.ts";
import type { Storage } from "../../storage.ts";
import { call, close, truncate, type Task } from "../../task.ts";
import type { CreateOption, CreateValues, Creation, NewFiles } from "../creation.ts";
import { checkCreateOptions, createQcow2, type Qcow2CreateOptions } from "./create.ts";
import { ENCRYPTION_OPTIONS, encryptNew, newEncryption, type NewEncryption } from "./encryption-create.ts";
import { readHeader } from "./header.ts";
import { measureQcow2 } from "./measure.ts";
import { openImage } from "./open.ts";

/** In the order in which qemu-img lists them. */
const OPTIONS: readonly CreateOption[] = [
  ...ENCRYPTION_OPTIONS,
  { name: "cluster_size", type: "size", help: "qcow2 cluster size", initial: "65536" },
  { name: "extended_l2", type: "boolean", help: "Extended L2 tables", initial: "off" },
  { name: "preallocation", type: "string", help: "Preallocation mode (allowed values: off, metadata, falloc, full)" },
  { name: "compression_type", type: "string", help: "Compression method used for image cluster compression", initial: "zlib" },
  { name: "size", type: "size", help: "Virtual disk size" },
  { name: "compat", type: "string", help: "Compatibility level (v2 [0.10] or v3 [1.1])" },
  { name: "backing_file", type: "string", help: "File name of a base image" },
  { name: "backing_fmt", type: "string", help: "Image format of the base image" },
  { name: "data_file", type: "string", help: "File name of an external data file" },
  { name: "data_file_raw", type: "boolean", help: "The external data file must stay valid as a raw image" },
  { name: "lazy_refcounts", type: "boolean", help: "Postpone refcount updates", initial: "off" },
  { name: "refcount_bits", type: "number", help: "Width of a reference count entry in bits", initial: "16" },
];

const TABLE_CACHE = 8 * 2 ** 20;

const VERSIONS: Readonly<Record<string, 2 | 3>> = { "0.10": 2, v2: 2, "1.1": 3, v3: 3 };
const COMPRESSION = ["zlib", "zstd"] as const;
export const qcow2Creation: Creation = {
  options: OPTIONS,
  measure: measureQcow2,
  plan(values, secrets) {
    const options = toOptions(values), space = spaceOf(values, options), encryption = newEncryption(values, secrets);
    if (encryption !== undefined && options.dataFileRaw === true) throw refused("an encrypted image cannot have a raw data file");
    checkCreateOptions(options);
    return (into, files, progress = noProgress) => create(into, files, options, space, progress, encryption);
  },
};

/** The tables go into `into`, the data, if so asked, into a file of its own. */
function* create(into: Storage, files: NewFiles, options: Qcow2CreateOptions, space: Space | undefined, progress: Progress, encryption: NewEncryption | undefined): Task {
  const { dataFile } = options, data = dataFile === undefined ? undefined : yield* call(() => files.create(dataFile));
  try {
    yield* createQcow2(into, options);
    if (encryption !== undefined) yield* encryptNew(into, encryption);
    const header = yield* readHeader(into);
    if (data !== undefined) yield truncate(data, header.size);
    if (space === undefined) return;
    const image = yield* openImage(into, data ?? into, header, { readOnly: false, tableCache: TABLE_CACHE });
    yield* image.preallocate(0, header.size, space, progress);
    yield* image.flush();
  } finally {
    if (data !== undefined) yield close(data);
  }
}

function spaceOf({ preallocation = "off" }: CreateValues, { backingFile, extendedL2, dataFileRaw }: Qcow2CreateOptions): Space | undefined {
  const space = SPACES.find((one) => one === preallocation);
  if (space === undefined && preallocation !== "off") throw refused(`Parameter 'preallocation' does not accept value '${String(preallocation)}'`);
  if (space !== undefined && backingFile !== undefined && extendedL2 !== true) throw refused("Backing file and preallocation can only be used at the same time if extended_l2 is on");
  // Who writes a raw data file without its tables must find every cluster in them.
  return space ?? (dataFileRaw === true ? "metadata" : undefined);
}

function toOptions(values: CreateValues): Qcow2CreateOptions {
  const { compat = "1.1", compression_type: compression, backing_file: backingFile, backing_fmt: backingFormat } = values;
  const version = VERSIONS[String(compat)], compressionType = COMPRESSION.find((one) => one === compression);
  if (version === undefined) throw refused(`Parameter 'version' does not accept value '${String(compat)}'`);
  if (compressionType === undefined) throw refused(`Parameter 'compression-type' does not accept value '${String(compression)}'`);
  if (backingFormat !== undefined && backingFile === undefined) throw refused("Backing format cannot be used without backing file");
  return {
    size: Number(values["size"]), version, compressionType, clusterSize: Number(values["cluster_size"]), refcountBits: Number(values["refcount_bits"]),
    lazyRefcounts: values["lazy_refcounts"] === true, extendedL2: values["extended_l2"] === true,
    dataFile: values["data_file"] === undefined ? undefined : String(values["data_file"]), dataFileRaw: values["data_file_raw"] === true,
    backingFile: backingFile === undefined ? undefined : String(backingFile), backingFormat: backingFormat === undefined ? undefined : String(backingFormat),
  };
}

function refused(what: string): DiskError {
  return new DiskError("invalid-argument", what, { format: "qcow2", operation: "create" });
}
