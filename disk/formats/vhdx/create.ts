import { encodeText } from "../../bytes/text.ts";
import { randomUuid } from "../../bytes/uuid.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { Creation } from "../creation.ts";
import { ENTRY_SIZE, LIMITS, STATE } from "./header.ts";
import { MAX_LOG, newHeaders } from "./headers.ts";
import {
  AT, DiskSize, FileParameters, GUID, guidBytes, KIB, METADATA_FLAG, MetadataFields, MetadataTableFields, METADATA_TABLE_SIZE, MIB, PARAMETER, RegionFields, REGIONS_SIZE, RegionTableFields, sealed, SectorSize, SIGNATURE,
} from "./structures.ts";

const SECTOR = 512, GIB = 2 ** 30;
const SUBFORMATS = new Set(["dynamic", "fixed"]);
/** QEMU leaves so much for metadata that come later. */
const SPARE = 4 * MIB;

export interface VhdxCreateOptions {
  /** Guest size in bytes, rounded up to whole sectors; at most 64 TiB. */
  readonly size: number;
  /** All blocks have their space from the beginning; the file is sparse where the storage can be. */
  readonly fixed?: boolean | undefined;
  /** A power of two from 1 to 256 MiB, rounded up to whole MiB; 0 or none: as QEMU chooses for the size. */
  readonly blockSize?: number | undefined;
  /** Whole MiB, at most 16; default 1 MiB. */
  readonly logSize?: number | undefined;
  /** Blocks without space say that they are zeros, which is QEMU's default, and not that they are not present. */
  readonly stateZero?: boolean | undefined;
}

interface Layout { readonly size: number; readonly fixed: boolean; readonly blockSize: number; readonly logSize: number; readonly stateZero: boolean; readonly blocks: number; readonly chunk: number; readonly batLength: number }

export const vhdxCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size; max of 64TB." },
    { name: "log_size", type: "size", help: "Log size; min 1MB.", initial: "1048576" },
    { name: "block_size", type: "size", help: "Block Size; min 1MB, max 256MB. 0 means auto-calculate based on image size.", initial: "0" },
    { name: "subformat", type: "string", help: "VHDX format type, can be either 'dynamic' or 'fixed'. Default is 'dynamic'." },
    { name: "block_state_zero", type: "boolean", help: "Force use of payload blocks of type 'ZERO'. Non-standard, but default.  Do not set to 'off' when using 'qemu-img convert' with subformat=dynamic." },
  ],
  plan(values) {
    const subformat = values["subformat"] ?? "dynamic", block = Number(values["block_size"] ?? 0);
    if (!SUBFORMATS.has(String(subformat))) throw refused(`Parameter 'subformat' does not accept value '${String(subformat)}'`);
    const options = {
      size: Number(values["size"]), fixed: subformat === "fixed", stateZero: values["block_state_zero"] !== false,
      logSize: Math.ceil(Number(values["log_size"] ?? MIB) / MIB) * MIB, blockSize: Math.min(Math.ceil(block / MIB) * MIB, LIMITS.blockSize.max),
    };
    plan(options);
    return (into) => createVhdx(into, options);
  },
};

/** Makes `file`, whatever it held, an empty VHDX. What tells that it is one comes last. */
export function* createVhdx(file: Storage, options: VhdxCreateOptions): Task {
  const layout = plan(options), { batLength, logSize } = layout, batOffset = MIB + logSize, metadataOffset = batOffset + batLength, dataOffset = metadataOffset + MIB + SPARE;
  yield truncate(file, 0);
  yield truncate(file, dataOffset + (layout.fixed ? layout.blocks * layout.blockSize : 0));
  yield* writeBat(file, layout, batOffset, dataOffset);
  yield* writeMetadata(file, layout, metadataOffset);
  const regions = regionTable([{ guid: GUID.bat, offset: batOffset, length: batLength }, { guid: GUID.metadata, offset: metadataOffset, length: MIB }]);
  for (const at of AT.regions) yield write(file, at, regions);
  for (const [i, header] of newHeaders(logSize).entries()) yield write(file, AT.headers[i] ?? 0, header);
  yield flush(file, "headers and tables before the signature of a new VHDX");
  yield write(file, 0, identifier());
  yield flush(file, "the new VHDX");
}

function identifier(): Uint8Array {
  const bytes = new Uint8Array(KIB);
  bytes.set(encodeText(SIGNATURE));
  // Its maker's name, in UTF-16.
  for (const [i, letter] of encodeText("disk86").entries()) bytes[AT.creator + i * 2] = letter;
  return bytes;
}

/** Of a dynamic image that says nothing of its blocks the BAT is zeros, which it is already. */
function* writeBat(file: Storage, { blocks, chunk, blockSize, fixed, stateZero }: Layout, batOffset: number, dataOffset: number): Task {
  if (!fixed && !stateZero) return;
  const entries = blocks + Math.max(0, Math.floor((blocks - 1) / chunk)), perChunk = MIB / ENTRY_SIZE;
  for (let first = 0; first < entries; first += perChunk) {
    const bytes = new Uint8Array(Math.min(perChunk, entries - first) * ENTRY_SIZE), view = new DataView(bytes.buffer);
    for (let at = 0, slot = first; at < bytes.length; at += ENTRY_SIZE, slot++) {
      if (slot % (chunk + 1) === chunk) continue;
      const place = fixed ? dataOffset + (slot - Math.floor(slot / (chunk + 1))) * blockSize : 0;
      view.setUint32(at, (place % 2 ** 32) + (fixed ? STATE.fullyPresent : STATE.zero), true);
      view.setUint32(at + 4, Math.floor(place / 2 ** 32), true);
    }
    yield write(file, batOffset + first * ENTRY_SIZE, bytes);
  }
}

function regionTable(regions: readonly { readonly guid: string; readonly offset: number; readonly length: number }[]): Uint8Array {
  const table = new Uint8Array(REGIONS_SIZE);
  table.set(RegionTableFields.format({ signature: encodeText("regi"), checksum: 0, count: regions.length, reserved: 0 }));
  for (const [i, { guid, offset, length }] of regions.entries()) table.set(RegionFields.format({ guid: guidBytes(guid), offset, length, required: 1 }), RegionTableFields.size + i * RegionFields.size);
  return sealed(table);
}

function* writeMetadata(file: Storage, { blockSize, size, fixed }: Layout, at: number): Task {
  const { required, virtualDisk } = METADATA_FLAG, ofDisk = required | virtualDisk, sector = SectorSize.format({ value: SECTOR });
  const items = [
    [GUID.fileParameters, required, FileParameters.format({ blockSize, flags: fixed ? PARAMETER.leaveAllocated : 0 })], [GUID.size, ofDisk, DiskSize.format({ value: size })],
    [GUID.page83, ofDisk, randomUuid(true)], [GUID.logicalSector, ofDisk, sector], [GUID.physicalSector, ofDisk, sector],
  ] as const;
  const bytes = new Uint8Array(METADATA_TABLE_SIZE + SECTOR);
  bytes.set(MetadataTableFields.format({ signature: encodeText("metadata"), reserved: 0, count: items.length, rest: new Uint8Array(20) }));
  let offset = METADATA_TABLE_SIZE;
  for (const [i, [guid, flags, value]] of items.entries()) {
    bytes.set(MetadataFields.format({ guid: guidBytes(guid), offset, length: value.length, flags, reserved: 0 }), MetadataTableFields.size + i * MetadataFields.size);
    bytes.set(value, offset);
    offset += value.length;
  }
  yield write(file, at, bytes);
}

/** Throws `invalid-argument` for what no image can have. */
function plan({ size: wanted, fixed = false, blockSize: asked = 0, logSize = MIB, stateZero = true }: VhdxCreateOptions): Layout {
  const size = Math.ceil(wanted / SECTOR) * SECTOR, blockSize = asked === 0 ? defaultBlockSize(size) : asked;
  if (!(size >= 0)) throw refused(`${wanted} is no size of a disk`);
  if (size > LIMITS.size) throw refused("Image size too large; max of 64TB");
  if (!(logSize >= MIB) || logSize % MIB !== 0) throw refused("Log size must be a multiple of 1 MB");
  if (logSize >= 4 * GIB) throw refused("Log size must be smaller than 4 GB");
  if (logSize > MAX_LOG) throw refused(`Log size too large: ${logSize} bytes; disk86 writes logs of at most ${MAX_LOG}`);
  if (!Number.isInteger(Math.log2(blockSize))) throw refused("Block size must be a power of two");
  if (blockSize < LIMITS.blockSize.min || blockSize > LIMITS.blockSize.max) throw refused("Block size must be from 1 MiB to 256 MiB");
  const blocks = Math.ceil(size / blockSize), chunk = (2 ** 23 * SECTOR) / blockSize, entries = blocks + Math.max(0, Math.floor((blocks - 1) / chunk));
  return { size, fixed, blockSize, logSize, stateZero, blocks, chunk, batLength: Math.max(1, Math.ceil((entries * ENTRY_SIZE) / MIB)) * MIB };
}

/** QEMU's choice: a BAT that fits memory. */
function defaultBlockSize(size: number): number {
  if (size > 32 * 1024 * GIB) return 64 * MIB;
  if (size > 100 * GIB) return 32 * MIB;
  return size > GIB ? 16 * MIB : 8 * MIB;
}

function refused(what: string): DiskError {
  return new DiskError("invalid-argument", what, { format: "vhdx", operation: "create" });
}
