import { encodeText } from "../../bytes/text.ts";
import { randomUuid } from "../../bytes/uuid.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import { AT, corrupt, HEADER_SIZE, HeaderFields, isNoGuid, isSound, MIB, SIGNATURE, sealed, signed, unsupported } from "./structures.ts";

export const NO_GUID = new Uint8Array(16);
/** Largest log that is replayed, which is done in memory; programs make logs of 1 MiB. */
export const MAX_LOG = 16 * MIB;

/** The header that counts, and which of the two it is. */
export interface Header {
  readonly which: 0 | 1;
  readonly bytes: Uint8Array;
  readonly logOffset: number;
  readonly logLength: number;
  /** `undefined`: the log is empty. */
  readonly logGuid: Uint8Array | undefined;
}

/** [MS-VHDX] 2.2.2: the sound header with the larger sequence number. */
export function* readHeader(file: Storage): Task<Header> {
  const signature = new Uint8Array(8), found: { which: 0 | 1; bytes: Uint8Array; sequence: bigint }[] = [];
  yield read(file, 0, signature);
  for (const which of [0, 1] as const) {
    const bytes = new Uint8Array(HEADER_SIZE);
    yield read(file, AT.headers[which], bytes);
    if (signed(bytes, "head") && isSound(bytes)) found.push({ which, bytes, sequence: HeaderFields.parse(bytes).sequence });
  }
  if (!signed(signature, SIGNATURE)) throw new DiskError("invalid-format", "not a VHDX image: the signature 'vhdxfile' is missing", { path: file.name, format: "vhdx" });
  // Disk2vhd makes two that are the same.
  const [current] = found.toSorted((a, b) => (a.sequence === b.sequence ? a.which - b.which : a.sequence > b.sequence ? -1 : 1));
  if (current === undefined) throw corrupt(file, "No valid VHDX header found", AT.headers[0]);
  return checked(file, current.which, current.bytes);
}

function checked(file: Storage, which: 0 | 1, bytes: Uint8Array): Header {
  const at = AT.headers[which], { version, logVersion, logGuid, logOffset, logLength } = HeaderFields.parse(bytes);
  if (version !== 1) throw unsupported(file, `VHDX version ${version}; version 1 is known`, at);
  if (logOffset % MIB !== 0 || logOffset < MIB || logLength % MIB !== 0 || logLength === 0) throw corrupt(file, `the log stands at an impossible place, ${logOffset}, or has an impossible length, ${logLength}`, at);
  if (logOffset + logLength > file.size) throw corrupt(file, "the file is truncated: it ends before its log does", at);
  const used = !isNoGuid(logGuid);
  if (used && logVersion !== 0) throw unsupported(file, `a VHDX log of version ${logVersion}; version 0 is known`, at);
  return { which, bytes, logOffset, logLength, logGuid: used ? logGuid : undefined };
}

/**
 * 2.2.2.1 "Updating the Headers": the other header becomes the one that counts, then this one follows, so that both say
 * the same of the log. `guids`: what changes. Answers the header that counts then.
 */
export function* updateHeaders(file: Storage, header: Header, guids: { readonly logGuid: Uint8Array; readonly fileWriteGuid?: Uint8Array; readonly dataWriteGuid?: Uint8Array }): Task<Header> {
  let { which, bytes } = header;
  for (let round = 0; round < 2; round++) {
    const next = bytes.slice(), fields = HeaderFields.parse(bytes);
    next.set(HeaderFields.format({ ...fields, ...guids, sequence: BigInt.asUintN(64, fields.sequence + 1n) }));
    which = which === 0 ? 1 : 0;
    bytes = sealed(next);
    yield write(file, AT.headers[which], bytes);
    yield flush(file, "a header");
  }
  return checked(file, which, bytes);
}

/** Both headers of a new image, the second of which counts. */
export function newHeaders(logLength: number): Uint8Array[] {
  const fields = { signature: encodeText("head"), checksum: 0, fileWriteGuid: randomUuid(true), dataWriteGuid: randomUuid(true), logGuid: NO_GUID, logVersion: 0, version: 1, logLength, logOffset: MIB };
  return [0n, 1n].map((sequence) => {
    const bytes = new Uint8Array(HEADER_SIZE);
    bytes.set(HeaderFields.format({ ...fields, sequence }));
    return sealed(bytes);
  });
}
