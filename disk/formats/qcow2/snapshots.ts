import { flags64, Struct, u16, u32 } from "../../bytes/struct.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";

/** QEMU's bounds (block/qcow2.h): unknown extra data of one entry, and the whole table, in bytes. */
export const SNAPSHOT_LIMITS = { extra: 1024, table: 1024 * 65536 } as const;

/** docs/interop/qcow2.rst, "Snapshots". 64-bit values may be anything in a corrupt image, and a clock in ns passes 2^53. */
const Head = new Struct({
  l1Offset: flags64, l1Size: u32, idLength: u16, nameLength: u16, seconds: u32, nanoseconds: u32, vmClock: flags64, vmState32: u32, extraLength: u32,
});
const Extra = new Struct({ vmStateSize: flags64, diskSize: flags64, icount: flags64 });
/** Extra data that version 3 must have: the sizes of the VM state and of the disk. */
const REQUIRED_EXTRA = 16;
const NO_ICOUNT = 0xffff_ffff_ffff_ffffn;

/** One internal snapshot. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: number;
  readonly l1Size: number;
  /** When it was taken, since 1970, and how long the guest had run (ns). */
  readonly seconds: number;
  readonly nanoseconds: number;
  readonly vmClock: bigint;
  /** Bytes of VM state behind the disk's end in this L1; 0: none. */
  readonly vmStateSize: number;
  /** Guest size in bytes; `undefined`: not recorded, so that of the image. */
  readonly diskSize: number | undefined;
  readonly icount: bigint | undefined;
  /** Extra data that the specification does not name yet; kept as it is. */
  readonly unknownExtra: Uint8Array;
  /** Bytes of extra data in the image, known and unknown. */
  readonly extraLength: number;
}

/** The snapshot table and its length in bytes, without padding behind the last entry. */
export interface SnapshotTable {
  readonly snapshots: readonly Snapshot[];
  readonly length: number;
  /** Whether some entry had more extra data than QEMU's bound, of which only so much was kept. */
  readonly truncated: boolean;
}

/** Where the header says the snapshot table is. */
export interface SnapshotPlace { readonly snapshotCount: number; readonly snapshotsOffset: number }

/** With `truncate`, unknown extra data over QEMU's bound is dropped instead of refused. */
export function* readSnapshots(file: Storage, place: SnapshotPlace, truncate = false): Task<SnapshotTable> {
  const corrupt = (what: string, offset: number): DiskError => new DiskError("corrupt", what, { path: file.name, offset, format: "qcow2" });
  const snapshots: Snapshot[] = [], head = new Uint8Array(Head.size);
  let length = 0, truncated = false;
  for (let index = 0; index < place.snapshotCount; index++) {
    const at = place.snapshotsOffset + Math.ceil(length / 8) * 8;
    if (at + Head.size > file.size) throw corrupt(`snapshot table entry ${index} is behind the end of the file`, at);
    yield read(file, at, head);
    const fields = Head.parse(head), strings = fields.idLength + fields.nameLength;
    if (fields.extraLength > SNAPSHOT_LIMITS.extra && !truncate) throw corrupt(`Too much extra metadata in snapshot table entry ${index}`, at + 36);
    truncated ||= fields.extraLength > SNAPSHOT_LIMITS.extra;
    length = at - place.snapshotsOffset + Head.size + fields.extraLength + strings;
    if (length > SNAPSHOT_LIMITS.table) throw corrupt("Snapshot table is too big", at);
    const extra = new Uint8Array(Math.min(fields.extraLength, SNAPSHOT_LIMITS.extra)), text = new Uint8Array(strings);
    yield read(file, at + Head.size, extra);
    yield read(file, at + Head.size + fields.extraLength, text);
    snapshots.push(snapshot(fields, extra, text));
  }
  return { snapshots, length, truncated };
}

function snapshot(fields: ReturnType<typeof Head.parse>, extra: Uint8Array, text: Uint8Array): Snapshot {
  const padded = new Uint8Array(Extra.size);
  padded.set(extra.subarray(0, Extra.size));
  const known = Extra.parse(padded), has = (bytes: number): boolean => extra.length >= bytes;
  return {
    id: decode(text.subarray(0, fields.idLength)), name: decode(text.subarray(fields.idLength)),
    l1Offset: Number(fields.l1Offset), l1Size: fields.l1Size,
    seconds: fields.seconds, nanoseconds: fields.nanoseconds, vmClock: fields.vmClock,
    vmStateSize: has(8) ? Number(known.vmStateSize) : fields.vmState32,
    diskSize: has(16) ? Number(known.diskSize) : undefined,
    icount: has(24) && known.icount !== NO_ICOUNT ? known.icount : undefined,
    unknownExtra: extra.slice(Extra.size), extraLength: extra.length,
  };
}

/** Whether the entry has the extra data that version 3 asks for. */
export function isComplete(snapshot: Snapshot): boolean {
  return snapshot.extraLength >= REQUIRED_EXTRA;
}

/** The table's bytes. Every entry gets all the extra data that the specification names; `diskSize` is for those without their own. */
export function formatSnapshots(snapshots: readonly Snapshot[], diskSize: number): Uint8Array {
  const entries = snapshots.map((snapshot) => formatSnapshot(snapshot, diskSize));
  const into = new Uint8Array(entries.reduce((length, entry) => Math.ceil(length / 8) * 8 + entry.length, 0));
  let at = 0;
  for (const entry of entries) {
    at = Math.ceil(at / 8) * 8;
    into.set(entry, at);
    at += entry.length;
  }
  return into;
}

function formatSnapshot(snapshot: Snapshot, diskSize: number): Uint8Array {
  const id = encode(snapshot.id), name = encode(snapshot.name), { vmStateSize, unknownExtra } = snapshot;
  const head = Head.format({
    l1Offset: BigInt(snapshot.l1Offset), l1Size: snapshot.l1Size, idLength: id.length, nameLength: name.length,
    seconds: snapshot.seconds, nanoseconds: snapshot.nanoseconds, vmClock: snapshot.vmClock,
    // A reader that knows only 32 bits should see no VM state rather than a part of it.
    vmState32: vmStateSize < 2 ** 32 ? vmStateSize : 0, extraLength: Extra.size + unknownExtra.length,
  });
  const extra = Extra.format({ vmStateSize: BigInt(vmStateSize), diskSize: BigInt(snapshot.diskSize ?? diskSize), icount: snapshot.icount ?? NO_ICOUNT });
  const into = new Uint8Array(head.length + extra.length + unknownExtra.length + id.length + name.length);
  let at = 0;
  for (const part of [head, extra, unknownExtra, id, name]) {
    into.set(part, at);
    at += part.length;
  }
  return into;
}

/**
 * Names are bytes to QEMU. Those that are UTF-8 are text; the others keep each byte as one character from U+F700
 * on, so that a rewritten table has the same bytes.
 */
const RAW = 0xf700;
const utf8 = new TextDecoder("utf-8", { fatal: true });
const encoder = new TextEncoder();

function decode(bytes: Uint8Array): string {
  try {
    const text = utf8.decode(bytes), again = encode(text);
    // Not so with a byte order mark, which decoding drops, nor with text that looks like our own escapes.
    if (again.length === bytes.length && again.every((byte, at) => byte === bytes[at])) return text;
  } catch {
    // Not UTF-8.
  }
  return Array.from(bytes, (byte) => String.fromCharCode(RAW + byte)).join("");
}

function encode(text: string): Uint8Array {
  const codes = Array.from(text, (letter) => letter.charCodeAt(0) - RAW);
  if (codes.length > 0 && codes.every((code) => code >= 0 && code < 256)) return Uint8Array.from(codes);
  return encoder.encode(text);
}
