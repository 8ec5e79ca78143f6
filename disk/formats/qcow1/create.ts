import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { CreateValues, Creation } from "../creation.ts";
import { CRYPT, ENTRY_SIZE, HeaderFields, l1EntriesFor, LIMITS, MAGIC, roundUp, SECTOR, VERSION } from "./header.ts";

export interface QcowCreateOptions {
  /** Guest size in bytes; rounded up to a multiple of 512, and not 0. */
  readonly size: number;
  /** As it is to stand in the image. The format has no place for its format: it is probed. */
  readonly backingFile?: string | undefined;
  /** log2 of the cluster size, 9 to 16. Default as QEMU: 9 above a backing file, else 12. */
  readonly clusterBits?: number | undefined;
  /** log2 of the entries of an L2 table, 6 to 13. Default as QEMU: 12 above a backing file, else 9. */
  readonly l2Bits?: number | undefined;
}

/** Makes `file`, whatever it held, an empty qcow image: header, name, L1. The header comes last. */
export function* createQcow(file: Storage, options: QcowCreateOptions): Task {
  const { header, name, length } = layout(options);
  yield truncate(file, 0);
  yield truncate(file, length);
  if (name.length > 0) yield write(file, header.length, name);
  yield flush(file, "tables before the header that points at them");
  yield write(file, 0, header);
  yield flush(file, "the new image");
}

interface Layout { readonly header: Uint8Array; readonly name: Uint8Array; readonly length: number }

function layout({ size, backingFile = "", clusterBits = backingFile === "" ? 12 : 9, l2Bits = backingFile === "" ? 9 : 12 }: QcowCreateOptions): Layout {
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "qcow", operation: "create" }); };
  const bytes = roundUp(size, SECTOR), name = encodeText(backingFile), l1Entries = l1EntriesFor(bytes, clusterBits, l2Bits);
  if (!(size >= 0)) refuse(`${size} is no size of a disk`);
  if (bytes === 0) refuse("a qcow disk of no bytes is not possible");
  if (clusterBits < LIMITS.clusterBits.min || clusterBits > LIMITS.clusterBits.max || l2Bits < LIMITS.l2Bits.min || l2Bits > LIMITS.l2Bits.max) refuse(`clusters of 2^${clusterBits} bytes with tables of 2^${l2Bits} entries are not possible`);
  if (!Number.isSafeInteger(bytes) || l1Entries > LIMITS.l1Entries) refuse(`a qcow image with these clusters has at most ${LIMITS.l1Entries * 2 ** (clusterBits + l2Bits)} bytes`);
  if (name.length > LIMITS.backingName) refuse(`the backing file name is too long: ${name.length} bytes; at most ${LIMITS.backingName} fit`);
  const l1Offset = roundUp(HeaderFields.size + name.length, ENTRY_SIZE);
  const header = HeaderFields.format({
    magic: MAGIC, version: VERSION, backingOffset: name.length === 0 ? 0 : HeaderFields.size, backingLength: name.length, mtime: 0, size: bytes,
    clusterBits, l2Bits, padding: 0, crypt: CRYPT.none, l1Offset,
  });
  return { header, name, length: l1Offset + roundUp(l1Entries * ENTRY_SIZE, SECTOR) };
}

export const qcowCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "backing_file", type: "string", help: "File name of a base image" },
    { name: "backing_fmt", type: "string", help: "Format of the backing image" },
    { name: "encryption", type: "boolean", help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)" },
    { name: "encrypt.format", type: "string", help: "Encrypt the image, format choices: 'aes'" },
    { name: "encrypt.key-secret", type: "string", help: "ID of the secret that provides the AES encryption key" },
  ],
  plan(values) {
    const options = toOptions(values);
    layout(options);
    return (into) => createQcow(into, options);
  },
};

function toOptions(values: CreateValues): QcowCreateOptions {
  const { size, backing_file: file } = values;
  for (const option of ["encryption", "encrypt.format", "encrypt.key-secret"]) {
    const value = values[option];
    if (value === undefined || value === false) continue;
    throw new DiskError("unsupported", `disk86 cannot make encrypted images (${option}): leave that out, or make the image with qemu-img`, { format: "qcow", operation: "create" });
  }
  return { size: Number(size), backingFile: file === undefined ? undefined : String(file) };
}
