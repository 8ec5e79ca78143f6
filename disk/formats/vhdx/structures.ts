import { bytes, flags64, Struct, u16, u32, u64 } from "../../bytes/struct.ts";
import { crc32c } from "../../bytes/crc32c.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";

export const KIB = 1024, MIB = 2 ** 20;
export const SIGNATURE = "vhdxfile";
/** Where the fixed structures of the first MiB stand. */
export const AT = { creator: 8, headers: [64 * KIB, 128 * KIB], regions: [192 * KIB, 256 * KIB] } as const;
/** What a header's and a region table's checksum covers, in bytes. */
export const HEADER_SIZE = 4 * KIB, REGIONS_SIZE = 64 * KIB, METADATA_TABLE_SIZE = 64 * KIB;
/** Every checksum stands behind a signature of four bytes. */
const CHECKSUM_AT = 4;

/** [MS-VHDX] 2.2.2 "Headers". */
export const HeaderFields = new Struct({
  signature: bytes(4), checksum: u32, sequence: flags64, fileWriteGuid: bytes(16), dataWriteGuid: bytes(16), logGuid: bytes(16),
  logVersion: u16, version: u16, logLength: u32, logOffset: u64,
}, "little");

/** 2.2.3 "Region Table". */
export const RegionTableFields = new Struct({ signature: bytes(4), checksum: u32, count: u32, reserved: u32 }, "little");
export const RegionFields = new Struct({ guid: bytes(16), offset: u64, length: u32, required: u32 }, "little");

/** 2.3.1 "Log Entry". */
export const LogEntryFields = new Struct({
  signature: bytes(4), checksum: u32, length: u32, tail: u32, sequence: u64, descriptors: u32, reserved: u32, guid: bytes(16), flushedSize: u64, lastSize: u64,
}, "little");
/** `word` and `lead` of data: the sector's last four and first eight bytes, where the log has its own. Of zeros: `lead` is the length. */
export const DescriptorFields = new Struct({ signature: bytes(4), word: bytes(4), lead: bytes(8), offset: u64, sequence: u64 }, "little");

/** 2.6 "Metadata Region". */
export const MetadataTableFields = new Struct({ signature: bytes(8), reserved: u16, count: u16, rest: bytes(20) }, "little");
export const MetadataFields = new Struct({ guid: bytes(16), offset: u32, length: u32, flags: u32, reserved: u32 }, "little");
export const FileParameters = new Struct({ blockSize: u32, flags: u32 }, "little");
export const DiskSize = new Struct({ value: u64 }, "little");
export const SectorSize = new Struct({ value: u32 }, "little");
export const PARAMETER = { leaveAllocated: 1, hasParent: 2 } as const;
export const METADATA_FLAG = { user: 1, virtualDisk: 2, required: 4 } as const;

export const GUID = {
  bat: "2dc27766-f623-4200-9d64-115e9bfd4a08", metadata: "8b7ca206-4790-4b9a-b8fe-575f050f886e",
  fileParameters: "caa16737-fa36-4d43-b3b6-33f0aa44e76b", size: "2fa54224-cd1b-4876-b211-5dbed83bf4b8", page83: "beca12ab-b2e6-4523-93ef-c309e000c746",
  logicalSector: "8141bf1d-a96f-4709-ba47-f233a8faab5f", physicalSector: "cda348c7-445d-4471-9cc9-e9885251c556", parentLocator: "a8d35f2d-b30b-454d-abf7-d3d84834ab0c",
  vhdxParent: "b04aefb7-d19e-4a81-b789-25b8e9445913",
} as const;

/** The text of a GUID, whose first three fields stand little-endian. */
export function guidText(guid: Uint8Array): string {
  const hex = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15].map((i) => (guid[i] ?? 0).toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

export function guidBytes(text: string): Uint8Array {
  const digits = text.replaceAll("-", ""), order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
  return Uint8Array.from(order, (i) => Number.parseInt(digits.slice(i * 2, i * 2 + 2), 16));
}

export const isNoGuid = (guid: Uint8Array): boolean => guid.every((byte) => byte === 0);

/** Whether `structure` begins with this signature, in ASCII. */
export function signed(structure: Uint8Array, signature: string): boolean {
  for (let i = 0; i < signature.length; i++) if (structure[i] !== signature.charCodeAt(i)) return false;
  return true;
}

/** Puts the checksum of `structure` where it belongs. */
export function sealed(structure: Uint8Array): Uint8Array {
  const view = new DataView(structure.buffer, structure.byteOffset);
  view.setUint32(CHECKSUM_AT, 0);
  view.setUint32(CHECKSUM_AT, crc32c(structure), true);
  return structure;
}

/** Whether the checksum is right. */
export function isSound(structure: Uint8Array): boolean {
  const wanted = new DataView(structure.buffer, structure.byteOffset).getUint32(CHECKSUM_AT, true), zeros = new Uint8Array(4);
  return crc32c(structure.subarray(CHECKSUM_AT + 4), crc32c(zeros, crc32c(structure.subarray(0, CHECKSUM_AT)))) === wanted;
}

export function corrupt(file: Storage, what: string, offset?: number): DiskError {
  return new DiskError("corrupt", what, { path: file.name, offset, format: "vhdx" });
}

export function unsupported(file: Storage, what: string, offset?: number): DiskError {
  return new DiskError("unsupported", what, { path: file.name, offset, format: "vhdx" });
}
