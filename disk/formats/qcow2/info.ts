import { type LuksSlot, readLuksHeader } from "../../crypto/luksHeader.ts";
import { SECTOR } from "../../crypto/sectors.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { FormatInfo, InfoObject, InfoValue } from "../info.ts";
import { BITMAP_FLAG, bitmapName, readBitmapDirectory } from "./bitmap-directory.ts";
import { CRYPT, encryptionHeader } from "./encryption.ts";
import { AUTOCLEAR, COMPATIBLE, INCOMPATIBLE, bitNames } from "./features.ts";
import { readHeader, type Qcow2Header } from "./header.ts";
import { readSnapshots } from "./snapshots.ts";

const BITMAP_FLAGS = [[BITMAP_FLAG.inUse, "in-use"], [BITMAP_FLAG.auto, "auto"]] as const;

/** What QEMU's `info` tells of a qcow2 image. Features that we cannot read are told too; unknown ones are refused by name. */
export function* qcow2Info(file: Storage): Task<FormatInfo> {
  const header = yield* readHeader(file);
  const known = Object.values(INCOMPATIBLE).reduce((all, bit) => all | bit, 0n), foreign = header.incompatible & ~known;
  if (foreign !== 0n) throw new DiskError("unsupported", `Unsupported qcow2 feature(s): ${bitNames(foreign, header).join(", ")}`, { path: file.name, format: "qcow2" });
  const { snapshots } = yield* readSnapshots(file, header);
  return {
    size: header.size, clusterSize: header.clusterSize,
    encrypted: header.crypt !== 0,
    dirty: (header.incompatible & INCOMPATIBLE.dirty) !== 0n,
    backing: header.backingFile === undefined ? undefined : { file: header.backingFile, format: header.backingFormat },
    snapshots,
    specific: { type: "qcow2", data: yield* specific(file, header) },
  };
}

function* specific(file: Storage, header: Qcow2Header): Task<InfoObject> {
  const has = (bit: bigint): boolean => (header.incompatible & bit) !== 0n;
  const data: Record<string, InfoValue> = { compat: header.version === 2 ? "0.10" : "1.1", "compression-type": header.compressionType, "refcount-bits": 2 ** header.refcountOrder };
  if (header.version >= 3) {
    Object.assign(data, { "lazy-refcounts": (header.compatible & COMPATIBLE.lazyRefcounts) !== 0n, corrupt: has(INCOMPATIBLE.corrupt), "extended-l2": has(INCOMPATIBLE.extendedL2) });
  }
  if (header.dataFile !== undefined) Object.assign(data, { "data-file": header.dataFile, "data-file-raw": (header.autoclear & AUTOCLEAR.rawExternalData) !== 0n });
  const bitmaps = yield* bitmapList(file, header);
  if (bitmaps.length > 0) data["bitmaps"] = bitmaps;
  if (header.crypt === CRYPT.aes) data["encrypt"] = { format: "aes" };
  if (header.crypt === CRYPT.luks) data["encrypt"] = yield* luks(file, header);
  return data;
}

/** The persistent bitmaps, as far as the autoclear bit vouches for them. */
function* bitmapList(file: Storage, header: Qcow2Header): Task<InfoObject[]> {
  return (yield* readBitmapDirectory(file, header)).map(({ name, granularityBits, flags }) => ({
    name: bitmapName(name), granularity: 2 ** granularityBits,
    flags: BITMAP_FLAGS.filter(([bit]) => (flags & bit) !== 0).map(([, word]) => word),
  }));
}

function* luks(file: Storage, header: Qcow2Header): Task<InfoObject> {
  const { cipher, mode: modes, hash, keyBytes, payloadOffset, iterations, uuid, slots } = yield* readLuksHeader(file, encryptionHeader(header, file.name)?.offset ?? 0);
  const [mode = "", iv = "", ivHash] = modes.split(/[-:]/);
  return {
    format: "luks", "cipher-alg": `${cipher}-${(keyBytes * 8) / (mode === "xts" ? 2 : 1)}`, "cipher-mode": mode, "ivgen-alg": iv,
    ...(ivHash === undefined ? {} : { "ivgen-hash-alg": ivHash }), "hash-alg": hash, "payload-offset": payloadOffset * SECTOR,
    "master-key-iters": iterations, uuid, slots: slots.map(luksSlot),
  };
}

function luksSlot({ active, iterations, keyOffset, stripes }: LuksSlot): InfoObject {
  const place = { "key-offset": keyOffset * SECTOR };
  return active ? { active: true, iters: iterations, stripes, ...place } : { active: false, ...place };
}
