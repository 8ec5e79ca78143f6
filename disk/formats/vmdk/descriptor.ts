import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { corrupt, HostedFields, MAGIC, readSparseHeader, SECTOR, type SparseHeader } from "./header.ts";

/** No descriptor is longer, as in QEMU. */
const MAX_LENGTH = 2 ** 20;
/** A content ID that stands for none. */
export const NO_CONTENT = 0xffff_ffff;

/** One line of the extent description. Sizes and places in bytes. */
export interface ExtentLine {
  readonly access: string;
  readonly size: number;
  /** FLAT, SPARSE, ZERO, VMFS, VMFSSPARSE... */
  readonly type: string;
  readonly file: string | undefined;
  readonly offset: number | undefined;
  readonly text: string;
}

/** Virtual Disk Format 5.0, "The Descriptor File". */
export interface Descriptor {
  readonly createType: string;
  readonly cid: number;
  /** Where the digits of the content ID stand in the file, and how many they are. */
  readonly cidAt: number;
  readonly cidDigits: number;
  readonly parentCid: number;
  /** Where its digits stand in the file, if there are eight. */
  readonly parentCidAt: number | undefined;
  readonly parent: string | undefined;
  readonly extents: readonly ExtentLine[];
}

/** What the named file says of the image: a descriptor, and the header of the only extent if that is in the same file. */
export interface Identity { readonly descriptor: Descriptor | undefined; readonly header: SparseHeader | undefined }

/** Reads a descriptor file, an extent with its descriptor within, or a COWD, which has none. */
export function* identify(file: Storage): Task<Identity> {
  const head = new Uint8Array(HostedFields.size);
  yield read(file, 0, head);
  const magic = new DataView(head.buffer).getUint32(0, true);
  if (magic === MAGIC.cowd) return { descriptor: undefined, header: yield* readSparseHeader(file) };
  if (magic !== MAGIC.hosted) return { descriptor: yield* readDescriptor(file, 0, file.size), header: undefined };
  const { capacity, descriptorOffset, descriptorSize } = HostedFields.parse(head);
  // An extent of no size is there only for the descriptor within; but QEMU makes empty disks like that.
  if (capacity === 0 && descriptorOffset > 0) {
    const descriptor = yield* readDescriptor(file, descriptorOffset * SECTOR, descriptorSize * SECTOR);
    if (descriptor.createType !== "monolithicSparse" && descriptor.createType !== "streamOptimized") return { descriptor, header: undefined };
    return { descriptor, header: yield* readSparseHeader(file) };
  }
  const header = yield* readSparseHeader(file);
  if (header.descriptor === undefined) throw extentOnly(file);
  return { descriptor: yield* readDescriptor(file, header.descriptor.offset, header.descriptor.length), header };
}

function extentOnly(file: Storage): DiskError {
  return new DiskError("invalid-format", "is one extent of a VMDK image, without a descriptor: open the image's descriptor file", { path: file.name, format: "vmdk" });
}

function* readDescriptor(file: Storage, offset: number, length: number): Task<Descriptor> {
  if (offset > file.size) throw corrupt(file, `the descriptor should stand at ${offset}, but the file has ${file.size} bytes`, HostedFields.offsetOf("descriptorOffset"));
  const bytes = new Uint8Array(Math.max(0, Math.min(length, file.size - offset, MAX_LENGTH)));
  yield read(file, offset, bytes);
  const nul = bytes.indexOf(0), text = nul < 0 ? bytes : bytes.subarray(0, nul);
  if (offset > 0 && text.length === 0) throw extentOnly(file);
  return parseDescriptor(text, offset, file);
}

const PIECE = 8192;

/** One letter a byte, so that places are those of the bytes. */
function toLetters(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += PIECE) text += String.fromCharCode(...bytes.subarray(at, at + PIECE));
  return text;
}

/** `offset`: where the text stands in the file. */
export function parseDescriptor(bytes: Uint8Array, offset: number, file: Storage): Descriptor {
  const text = toLetters(bytes), decode = decoderFor(bytes, text);
  const cid = /^[ \t]*CID[ \t]*=[ \t]*"?([0-9a-f]{1,8})\b/dim.exec(text), createType = valueOf(text, "createType");
  if (cid === null || createType === undefined) throw new DiskError("invalid-format", `invalid VMDK image descriptor: it has no ${cid === null ? "CID" : "createType"}`, { path: file.name, offset, format: "vmdk" });
  const parentCid = Number.parseInt(valueOf(text, "parentCID") ?? "", 16), [digitsAt = 0] = cid.indices?.[1] ?? [], digits = cid[1] ?? "", parent = valueOf(text, "parentFileNameHint");
  const eight = /^[ \t]*parentCID[ \t]*=[ \t]*"?([0-9a-f]{8})\b/dim.exec(text)?.indices?.[1]?.[0];
  return {
    parentCidAt: eight === undefined ? undefined : offset + eight,
    createType, cid: Number.parseInt(digits, 16), cidAt: offset + digitsAt, cidDigits: digits.length,
    parentCid: Number.isNaN(parentCid) ? NO_CONTENT : parentCid, parent: parent === undefined ? undefined : decode(parent),
    extents: parseExtents(text, decode, file),
  };
}

/** The first line `name=value` or `name="value"`. */
function valueOf(text: string, name: string): string | undefined {
  const found = new RegExp(`^[ \\t]*${name}[ \\t]*=[ \\t]*(?:"([^"\\r\\n]*)"|([^"\\s]+))`, "im").exec(text);
  return found?.[1] ?? found?.[2];
}

/** Access, sectors, type, then a name in quotes and a place in sectors where the type has them; devices have more behind. */
const EXTENT = /^[ \t]*(RW|RDONLY|NOACCESS)[ \t]+(\d+)[ \t]+([A-Z]+)(?:[ \t]+"([^"\r\n]*)"(?:[ \t]+(\d+))?)?/gm;

function parseExtents(text: string, decode: (name: string) => string, file: Storage): ExtentLine[] {
  return [...text.matchAll(EXTENT)].map(([line, access = "", sectors, type = "", name, offset]) => {
    const bytes = (count: string | undefined): number | undefined => (count === undefined ? undefined : Number(count) * SECTOR), size = bytes(sectors) ?? 0;
    if (!Number.isSafeInteger(size) || !Number.isSafeInteger(bytes(offset) ?? 0)) throw corrupt(file, `Invalid extent line: ${line.trim()}`);
    return { access, size, type, file: name === undefined ? undefined : decode(name), offset: bytes(offset), text: line.trim() };
  }).filter(({ size }) => size > 0);
}

/** How names in the descriptor are to be read: as UTF-8 if all of it is, else in the encoding that it gives, else byte for byte. */
function decoderFor(bytes: Uint8Array, text: string): (name: string) => string {
  const decoder = decoderOf("utf-8", bytes) ?? decoderOf(valueOf(text, "encoding") ?? "utf-8", bytes);
  return (name) => (decoder === undefined ? name : decoder.decode(Uint8Array.from(name, (letter) => letter.charCodeAt(0))));
}

/** A decoder, if the encoding is known and can be that of `bytes`. */
function decoderOf(encoding: string, bytes: Uint8Array): TextDecoder | undefined {
  try {
    const decoder = new TextDecoder(encoding, { fatal: true });
    decoder.decode(bytes);
    return decoder;
  } catch {
    return undefined;
  }
}
