import { bytes, Struct, u32, u64 } from "../../bytes/struct.ts";
import { DiskError, type DiskErrorKind } from "../../errors.ts";
import { ZERO, type BlockMapLayout } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

const MIB = 2 ** 20, SECTOR = 512;
export const SIGNATURE = 0xbeda107f, SIGNATURE_AT = 0x40, VERSION = 0x0001_0001;
export const TYPE = { dynamic: 1, fixed: 2, undo: 3, differencing: 4 } as const;
/** The block size of every program that makes such images. */
export const BLOCK_SIZE = MIB;
/** QEMU's bounds (block/vdi.c). */
export const LIMITS = { blocks: 0x1fff_ff80, size: 0x1fff_ff80 * MIB, blockSize: { min: SECTOR, max: 32 * MIB } } as const;

/** Entries of the block map from here on are no block's number: it never had space, or it was discarded. */
export const UNALLOCATED = 0xffff_ffff, DISCARDED = 0xffff_fffe;
export const ENTRY_SIZE = 4;

/** VirtualBox' header of version 1.1. */
export const HeaderFields = new Struct({
  text: bytes(SIGNATURE_AT), signature: u32, version: u32, headerSize: u32, type: u32, flags: u32, description: bytes(256),
  mapOffset: u32, dataOffset: u32, cylinders: u32, heads: u32, sectors: u32, sectorSize: u32, unused: u32,
  size: u64, blockSize: u32, blockExtra: u32, blocks: u32, allocated: u32,
  uuid: bytes(16), uuidModified: bytes(16), uuidLink: bytes(16), uuidParent: bytes(16), rest: bytes(56),
}, "little");

/** A checked header: the map and the data do not overlap, and the map has room for the disk. Sizes in bytes. */
export interface VdiHeader {
  /** Guest size: a multiple of 512, rounded up as QEMU does. */
  readonly size: number;
  readonly blockSize: number;
  /** Entries of the block map. */
  readonly blocks: number;
  /** Blocks in the data area, by the header's own count. */
  readonly allocated: number;
  readonly fixed: boolean;
  readonly mapOffset: number;
  readonly dataOffset: number;
}

type Fields = ReturnType<typeof HeaderFields.parse>;
type Fail = (kind: DiskErrorKind, what: string, field?: keyof Fields) => never;

/** The header as far as a listing needs it; only what is no VDI at all is refused. */
export function* readFields(file: Storage): Task<{ fields: Fields; fail: Fail }> {
  const fail: Fail = (kind, what, field) => {
    throw new DiskError(kind, what, { path: file.name, offset: field === undefined ? undefined : HeaderFields.offsetOf(field), format: "vdi" });
  };
  const head = new Uint8Array(HeaderFields.size);
  yield read(file, 0, head);
  const fields = HeaderFields.parse(head);
  if (fields.signature !== SIGNATURE) fail("invalid-format", "not a VDI image: the signature is missing", "signature");
  if (fields.version !== VERSION) fail("unsupported", `VDI version ${fields.version >>> 16}.${fields.version & 0xffff}; version 1.1 is known`, "version");
  if (fields.size > LIMITS.size) fail("unsupported", `a VDI disk of ${fields.size} bytes; QEMU's bound is ${LIMITS.size}`, "size");
  const { blockSize } = fields, { min, max } = LIMITS.blockSize;
  if (blockSize < min || blockSize > max || !Number.isInteger(Math.log2(blockSize))) fail("unsupported", `VDI blocks of ${blockSize} bytes; a power of two from ${min} bytes to ${max / MIB} MiB is possible`, "blockSize");
  return { fields, fail };
}

export function* readHeader(file: Storage): Task<VdiHeader> {
  const { fields, fail } = yield* readFields(file);
  refuseUnsupported(fields, fail);
  const { blockSize, blocks, mapOffset, dataOffset } = fields, size = Math.ceil(fields.size / SECTOR) * SECTOR;
  if (blocks > LIMITS.blocks) fail("unsupported", `a block map of ${blocks} entries; QEMU's bound is ${LIMITS.blocks}`, "blocks");
  if (size > blocks * blockSize) fail("corrupt", `the block map has ${blocks} entries, too few for a disk of ${size} bytes`, "blocks");
  if (mapOffset % SECTOR !== 0 || mapOffset < HeaderFields.size) fail("corrupt", `the block map stands at an impossible place, ${mapOffset}`, "mapOffset");
  if (dataOffset % SECTOR !== 0 || dataOffset < mapOffset + blocks * ENTRY_SIZE) fail("corrupt", `the data begin at an impossible place, ${dataOffset}`, "dataOffset");
  if (mapOffset + blocks * ENTRY_SIZE > file.size) fail("corrupt", "the file is truncated: it ends before its block map does", "mapOffset");
  return { size, blockSize, blocks, mapOffset, dataOffset, allocated: fields.allocated, fixed: fields.type === TYPE.fixed };
}

export function mapLayout({ blockSize, blocks, mapOffset, dataOffset }: VdiHeader): BlockMapLayout {
  return {
    format: "vdi", noun: "block", blockSize, entries: blocks, entrySize: ENTRY_SIZE, slicesAt: mapOffset, firstEntry: 0, dataOffset,
    decode(view, at) {
      const number = view.getUint32(at, true);
      return number < DISCARDED ? dataOffset + number * blockSize : ZERO;
    },
    encode: (view, at, place) => { view.setUint32(at, (place - dataOffset) / blockSize, true); },
  };
}

function refuseUnsupported(fields: Fields, fail: Fail): void {
  const { type, sectorSize, blockExtra } = fields;
  const stands = type === TYPE.differencing || isSet(fields.uuidLink) || isSet(fields.uuidParent);
  if (stands) fail("unsupported", "a differencing VDI or a snapshot: it names another image as its parent; merge them first, with VBoxManage clonemedium", "uuidLink");
  if (type === TYPE.undo) fail("unsupported", "an undo VDI, which only its own program can read", "type");
  if (type !== TYPE.dynamic && type !== TYPE.fixed) fail("unsupported", `VDI type ${type}; dynamic (1) and fixed (2) are known`, "type");
  if (sectorSize !== SECTOR) fail("unsupported", `VDI sectors of ${sectorSize} bytes; only ${SECTOR} are possible`, "sectorSize");
  if (blockExtra !== 0) fail("unsupported", `a VDI with ${blockExtra} extra bytes before each block`, "blockExtra");
}

function isSet(uuid: Uint8Array): boolean {
  return uuid.some((byte) => byte !== 0);
}

export function corrupt(file: Storage, what: string, offset?: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "vdi" });
}
