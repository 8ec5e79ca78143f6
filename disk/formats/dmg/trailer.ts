import { bytes, Struct, u32, u64 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

const SECTOR = 512, KOLY = 0x6b6f6c79;

/** The last 512 bytes of the file. */
const TrailerFields = new Struct({
  magic: u32, version: u32, headerSize: u32, flags: u32, runningDataOffset: bytes(8), dataOffset: u64, dataLength: bytes(8), resourceOffset: u64, resourceLength: u64,
  segment: u32, segments: u32, segmentId: bytes(16), dataChecksum: bytes(136), xmlOffset: u64, xmlLength: u64, reserved: bytes(120), checksum: bytes(136), variant: u32, sectors: u64, end: bytes(12),
});

/** A part of the file, in bytes. */
export interface Part { readonly offset: number; readonly length: number }

/** A checked trailer. */
export interface DmgTrailer {
  /** Guest size in bytes. */
  readonly size: number;
  /** What the chunks' places are relative to. */
  readonly dataOffset: number;
  /** Where the tables of chunks are: in a resource fork, or else in a property list. */
  readonly resources: Part | undefined;
  readonly propertyList: Part | undefined;
}

/** Encrypted images have no trailer of their own. */
export function isEncrypted(head: Uint8Array): boolean {
  return head.length >= 8 && String.fromCharCode(...head.subarray(0, 8)) === "encrcdsa";
}

/** Whether the last bytes of a file are those of a disk image. */
export function hasTrailer(tail: Uint8Array): boolean {
  return trailerAt(tail) !== undefined;
}

/** Where it begins in `tail`: at its end, or a little before where the file was padded to whole sectors. */
function trailerAt(tail: Uint8Array): number | undefined {
  const view = new DataView(tail.buffer, tail.byteOffset, tail.length), last = tail.length - TrailerFields.size;
  for (let at = last; at >= 0 && at > last - SECTOR; at--) if (view.getUint32(at) === KOLY) return at;
  return undefined;
}

export function* readTrailer(file: Storage): Task<DmgTrailer> {
  const fail = (kind: "invalid-format" | "unsupported" | "corrupt", what: string, offset?: number): never => { throw new DiskError(kind, what, { path: file.name, offset, format: "dmg" }); };
  const head = new Uint8Array(8), tail = new Uint8Array(Math.min(file.size, 2 * SECTOR));
  yield read(file, 0, head);
  if (isEncrypted(head)) fail("unsupported", "the image is encrypted; decrypt it with hdiutil convert");
  yield read(file, file.size - tail.length, tail);
  const within = trailerAt(tail);
  if (within === undefined) return fail("invalid-format", "not a dmg image: the trailer ('koly') is missing at its end");
  const at = file.size - tail.length + within, fields = TrailerFields.parse(tail, within);
  const { dataOffset, sectors, segments } = fields, part = (what: string, offset: number, length: number): Part | undefined => {
    if (offset + length > at) fail("corrupt", `${what} should stand from ${offset} to ${offset + length}, which is not within the image`, at);
    return length === 0 ? undefined : { offset, length };
  };
  if (segments > 1) fail("unsupported", `it is one of ${segments} segments of an image; join them with hdiutil convert`, at);
  if (dataOffset > at) fail("corrupt", "the data fork should begin behind its end", at);
  if (!Number.isSafeInteger(sectors * SECTOR)) fail("corrupt", `a disk of ${sectors} sectors is impossible`, at);
  return {
    size: sectors * SECTOR, dataOffset,
    resources: part("the resource fork", fields.resourceOffset, fields.resourceLength), propertyList: part("the property list", fields.xmlOffset, fields.xmlLength),
  };
}
