import { encodeText } from "../../bytes/text.ts";
import { DiskError, hex } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Amendment, AmendOptions } from "../amendment.ts";
import type { CreateOption, CreateValues } from "../creation.ts";
import { Qcow2Bitmaps } from "./bitmaps.ts";
import { rebuild } from "./rebuild.ts";
import { examineSound } from "./check.ts";
import { expandZeroClusters } from "./expand.ts";
import { EXTENSION, formatFeatureNames } from "./extensions.ts";
import { AUTOCLEAR, COMPATIBLE, FEATURE_NAMES, INCOMPATIBLE } from "./features.ts";
import { rewriteHeader } from "./header-write.ts";
import { readHeader, type Qcow2Header } from "./header.ts";
import { prepareForWriting } from "./prepare.ts";
import { refcountWidth } from "./refcount-bits.ts";
import { Refcounts } from "./refcounts.ts";
import { readSnapshots } from "./snapshots.ts";

/** In QEMU's order of names. */
const OPTIONS: readonly CreateOption[] = [
  { name: "backing_file", type: "string", help: "File name of a base image" },
  { name: "backing_fmt", type: "string", help: "Image format of the base image" },
  { name: "compat", type: "string", help: "Compatibility level (v2 [0.10] or v3 [1.1])" },
  { name: "data_file", type: "string", help: "File name of an external data file" },
  { name: "data_file_raw", type: "boolean", help: "The external data file must stay valid as a raw image" },
  { name: "encrypt.iter-time", type: "number", help: "Time to spend in PBKDF in milliseconds" },
  { name: "encrypt.keyslot", type: "number", help: "Select a single keyslot to modify explicitly" },
  { name: "encrypt.new-secret", type: "string", help: "New secret to set in the matching keyslots. Empty string to erase" },
  { name: "encrypt.old-secret", type: "string", help: "Select all keyslots that match this password" },
  { name: "encrypt.state", type: "string", help: "Select new state of affected keyslots (active/inactive)" },
  { name: "lazy_refcounts", type: "boolean", help: "Postpone refcount updates" },
  { name: "refcount_bits", type: "number", help: "Width of a reference count entry in bits" },
  { name: "size", type: "size", help: "Virtual disk size" },
];
const VERSIONS: Readonly<Record<string, 2 | 3>> = { "0.10": 2, v2: 2, "1.1": 3, v3: 3 };
const CACHE = 2 ** 21;

export const qcow2Amendment: Amendment = {
  options: OPTIONS,
  apply: amend,
  downgrades: ({ compat }) => VERSIONS[String(compat)] === 2,
};

/** What is wanted, where it differs from what is there. */
interface Wanted {
  readonly version: 2 | 3;
  readonly order: number;
  readonly lazy: boolean;
  readonly dataFile: string | undefined;
  readonly dataFileRaw: boolean;
}

function* amend(file: Storage, values: CreateValues, options: AmendOptions = {}): Task {
  let header = yield* readHeader(file);
  const wanted = wantedOf(header, values);
  if (wanted.version < header.version) yield* checkDowngrade(file, header, wanted);
  header = yield* prepareForWriting(file, header);
  if (wanted.version > header.version) header = yield* upgrade(file);
  if (wanted.order !== header.refcountOrder) yield* changeWidth(file, wanted.order, options);
  yield* changeFlags(file, wanted);
  if (wanted.version < header.version) yield* downgrade(file, options);
}

function refused(what: string): DiskError {
  return new DiskError("invalid-argument", what, { format: "qcow2", operation: "amend" });
}

/** The values against what the image is, refused in QEMU's words. */
function wantedOf(header: Qcow2Header, values: CreateValues): Wanted {
  const { compat, refcount_bits: bits, lazy_refcounts: lazy = (header.compatible & COMPATIBLE.lazyRefcounts) !== 0n, backing_file: backing, backing_fmt: format } = values;
  const version = compat === undefined ? header.version : VERSIONS[String(compat)], order = bits === undefined ? header.refcountOrder : Math.log2(Number(bits));
  if (version === undefined) throw refused(`Unknown compatibility level ${String(compat)}`);
  const keys = Object.keys(values).find((name) => name.startsWith("encrypt."));
  if (keys !== undefined) throw new DiskError("unsupported", `disk86 cannot change the keys of an encrypted image (${keys}): use qemu-img amend`, { format: "qcow2", operation: "amend" });
  if ((backing !== undefined && backing !== header.backingFile) || (format !== undefined && format !== header.backingFormat)) throw refused("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.");
  if (!(Number.isInteger(order) && order >= 0 && order <= 6)) throw refused("Refcount width must be a power of two and may not exceed 64 bits");
  if (version < 3 && bits !== undefined && order !== 4) throw refused("Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or greater)");
  if (version < 3 && values["lazy_refcounts"] === true) throw refused("Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)");
  return { version, order, lazy: lazy === true && version >= 3, ...wantedDataFile(header, values) };
}

function wantedDataFile(header: Qcow2Header, values: CreateValues): Pick<Wanted, "dataFile" | "dataFileRaw"> {
  const { data_file: dataFile = header.dataFile } = values, external = (header.incompatible & INCOMPATIBLE.externalData) !== 0n;
  const raw = (header.autoclear & AUTOCLEAR.rawExternalData) !== 0n, dataFileRaw = values["data_file_raw"] ?? raw;
  if (values["data_file"] !== undefined && !external) throw refused("data-file can only be set for images that use an external data file");
  if (dataFileRaw === true && !raw) throw refused("data-file-raw cannot be set on existing images");
  return { dataFile: dataFile === undefined ? undefined : String(dataFile), dataFileRaw: dataFileRaw === true };
}

/** Version 2 has no features, one width of refcounts, and records no sizes of snapshots. */
function* checkDowngrade(file: Storage, header: Qcow2Header, { order }: Wanted): Task {
  const features = header.incompatible & ~INCOMPATIBLE.dirty;
  if ((features & INCOMPATIBLE.externalData) !== 0n) throw refused("Cannot downgrade an image with a data file");
  if (features !== 0n) throw refused(`Cannot downgrade an image with incompatible features 0x${features.toString(16)} set`);
  if (order !== 4) throw refused("compat=0.10 requires refcount_bits=16");
  if (header.crypt !== 0) throw new DiskError("unsupported", "disk86 cannot downgrade an encrypted image: use qemu-img amend", { path: file.name, format: "qcow2", operation: "amend" });
  const { snapshots } = yield* readSnapshots(file, header);
  if (snapshots.some(({ vmStateSize, diskSize = header.size }) => vmStateSize >= 2 ** 32 || diskSize !== header.size)) throw refused("Internal snapshots prevent downgrade of image");
}

function* upgrade(file: Storage): Task<Qcow2Header> {
  return yield* rewriteHeader(file, (draft) => {
    draft.version = 3;
    if (!draft.extensions.some(({ type }) => type === EXTENSION.featureNames)) draft.extensions.push({ type: EXTENSION.featureNames, data: formatFeatureNames(FEATURE_NAMES) });
  });
}

function* downgrade(file: Storage, options: AmendOptions): Task {
  yield* dropBitmaps(file);
  yield* expandZeroClusters(file, options);
  yield* rewriteHeader(file, (draft) => {
    draft.version = 2;
    draft.extensions = draft.extensions.filter(({ type }) => type !== EXTENSION.featureNames && type !== EXTENSION.bitmaps);
  });
}

/** Nobody would keep them up to date any more: what they take is given back. */
function* dropBitmaps(file: Storage): Task {
  const header = yield* readHeader(file), bitmaps = yield* Qcow2Bitmaps.open(file, header), all = bitmaps.list();
  if (all.length === 0) return;
  for (const { name } of all) bitmaps.remove(name);
  yield* bitmaps.store(yield* Refcounts.open(file, header, CACHE));
}

/**
 * Writes all refcounts anew in another width, beside the old ones; one write to the header switches over. What no table
 * references is free from then on.
 */
function* changeWidth(file: Storage, order: number, options: AmendOptions): Task {
  const { state, refcounts: { own } } = yield* examineSound(file, options), width = refcountWidth(order), { references } = state;
  for (let cluster = 0; cluster <= state.clusters; cluster++) {
    const count = references.get(cluster);
    if (count > width.max) throw refused(`Cannot decrease refcount entry width to ${2 ** order} bits: Cluster at offset ${hex(cluster * state.clusterSize)} has a refcount of ${count}`);
  }
  yield* rebuild(state, { own, order, width, perBlock: (state.clusterSize * 8) / 2 ** order }, undefined);
}

function* changeFlags(file: Storage, { lazy, dataFile, dataFileRaw }: Wanted): Task {
  yield* rewriteHeader(file, (draft) => {
    if (draft.version < 3) return;
    draft.compatible = lazy ? draft.compatible | COMPATIBLE.lazyRefcounts : draft.compatible & ~COMPATIBLE.lazyRefcounts;
    if (!dataFileRaw) draft.autoclear &= ~AUTOCLEAR.rawExternalData;
    const at = draft.extensions.findIndex(({ type }) => type === EXTENSION.dataFile);
    if (dataFile !== undefined && at >= 0) draft.extensions[at] = { type: EXTENSION.dataFile, data: encodeText(dataFile) };
  });
}
