import { Struct, u32 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

/** The file is a shell script that mounts itself; the header follows it. */
const SCRIPT = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";
const HEADER_AT = 128, SECTOR = 512;
const HeaderFields = new Struct({ blockSize: u32, blocks: u32 });
/** Where the offsets of the blocks begin, one more than there are. */
export const OFFSETS_AT = HEADER_AT + HeaderFields.size;
/** QEMU's bounds: of a block, and of the table. */
export const LIMITS = { blockSize: 64 * 2 ** 20, packed: 128 * 2 ** 20, table: 512 * 2 ** 20 } as const;

export interface CloopHeader {
  readonly blockSize: number;
  readonly blocks: number;
  /** Guest size in bytes: whole blocks. */
  readonly size: number;
}

export function isCloop(head: Uint8Array): boolean {
  return head.length >= OFFSETS_AT && String.fromCharCode(...head.subarray(0, SCRIPT.length)) === SCRIPT;
}

/** Of an image without its script, too, if it was named as one. */
export function* readHeader(file: Storage): Task<CloopHeader> {
  const fail = (kind: "invalid-format" | "unsupported" | "corrupt", what: string, offset?: number): never => { throw new DiskError(kind, what, { path: file.name, offset, format: "cloop" }); };
  const head = new Uint8Array(OFFSETS_AT);
  if (file.size < OFFSETS_AT) fail("invalid-format", "not a cloop image: it ends within its header");
  yield read(file, 0, head);
  const { blockSize, blocks } = HeaderFields.parse(head, HEADER_AT);
  if (blockSize === 0 || blockSize % SECTOR !== 0) fail("corrupt", `blocks of ${blockSize} bytes are impossible`, HEADER_AT);
  if (blockSize > LIMITS.blockSize) fail("unsupported", `blocks of ${blockSize} bytes; at most ${LIMITS.blockSize} are read`, HEADER_AT);
  if ((blocks + 1) * 8 > LIMITS.table) fail("unsupported", `${blocks} blocks; their offsets would take more than ${LIMITS.table} bytes`, HEADER_AT + 4);
  if (OFFSETS_AT + (blocks + 1) * 8 > file.size) fail("corrupt", "the file is truncated: it ends before the offsets of its blocks do", OFFSETS_AT);
  return { blockSize, blocks, size: blocks * blockSize };
}
