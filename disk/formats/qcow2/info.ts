import { Struct, u32, u16, u64, bytes, getU64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import type { FormatInfo, InfoObject, InfoValue } from "../info.ts";
import { BITMAP_FLAG, bitmapName, readBitmapDirectory } from "./bitmap-directory.ts";
import { EXTENSION } from "./extensions.ts";
import { AUTOCLEAR, COMPATIBLE, INCOMPATIBLE, bitNames } from "./features.ts";
import { readHeader, type Qcow2Header } from "./header.ts";
import { readSnapshots } from "./snapshots.ts";

const AES = 1, LUKS = 2;

const BITMAP_FLAGS = [[BITMAP_FLAG.inUse, "in-use"], [BITMAP_FLAG.auto, "auto"]] as const;

/** The LUKS on-disk format, version 1.2.3, "phdr" and "key slot". */
const LuksHeader = new Struct({
  magic: bytes(6), version: u16, cipher: bytes(32), mode: bytes(32), hash: bytes(32), payloadOffset: u32, keyBytes: u32,
  digest: bytes(20), salt: bytes(32), iterations: u32, uuid: bytes(40),
});
const LuksSlot = new Struct({ active: u32, iterations: u32, salt: bytes(32), keyOffset: u32, stripes: u32 });
const LUKS_SLOTS = 8, LUKS_ACTIVE = 0x00ac71f3, LUKS_SECTOR = 512;

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
  if (header.crypt === AES) data["encrypt"] = { format: "aes" };
  if (header.crypt === LUKS) data["encrypt"] = yield* luks(file, header);
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
  const place = header.extensions.find(({ type }) => type === EXTENSION.encryption)?.data;
  const corrupt = (what: string): DiskError => new DiskError("corrupt", what, { path: file.name, format: "qcow2" });
  if (place === undefined || place.length < u64.size) throw corrupt("the place of the encryption header is missing");
  const bytes = new Uint8Array(LuksHeader.size + LUKS_SLOTS * LuksSlot.size);
  yield read(file, getU64(new DataView(place.buffer, place.byteOffset), 0), bytes);
  const fields = LuksHeader.parse(bytes);
  if (text(fields.magic.subarray(0, 4)) !== "LUKS" || fields.version !== 1) throw corrupt("the encryption header is no LUKS header");
  const [mode = "", iv = "", ivHash] = text(fields.mode).split(/[-:]/);
  const slots = Array.from({ length: LUKS_SLOTS }, (_, index) => luksSlot(LuksSlot.parse(bytes, LuksHeader.size + index * LuksSlot.size)));
  return {
    format: "luks", "cipher-alg": `${text(fields.cipher)}-${(fields.keyBytes * 8) / (mode === "xts" ? 2 : 1)}`, "cipher-mode": mode, "ivgen-alg": iv,
    ...(ivHash === undefined ? {} : { "ivgen-hash-alg": ivHash }), "hash-alg": text(fields.hash), "payload-offset": fields.payloadOffset * LUKS_SECTOR,
    "master-key-iters": fields.iterations, uuid: text(fields.uuid), slots,
  };
}

function luksSlot({ active, iterations, keyOffset, stripes }: ReturnType<typeof LuksSlot.parse>): InfoObject {
  const place = { "key-offset": keyOffset * LUKS_SECTOR };
  return active === LUKS_ACTIVE ? { active: true, iters: iterations, stripes, ...place } : { active: false, ...place };
}

/** Text up to the first NUL; what is not UTF-8 becomes the replacement character. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}
