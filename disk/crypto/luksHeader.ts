import { bytes, Struct, u16, u32 } from "../bytes/struct.ts";
import { DiskError } from "../errors.ts";
import type { Storage } from "../storage.ts";
import { read, type Task } from "../task.ts";

/** The LUKS on-disk format, version 1.2.3, "phdr" and "key slot". */
const Header = new Struct({
  magic: bytes(6), version: u16, cipher: bytes(32), mode: bytes(32), hash: bytes(32), payloadOffset: u32, keyBytes: u32,
  digest: bytes(20), salt: bytes(32), iterations: u32, uuid: bytes(40),
});
const Slot = new Struct({ active: u32, iterations: u32, salt: bytes(32), keyOffset: u32, stripes: u32 });
export const LUKS_SLOTS = 8;
const ACTIVE = 0x00ac71f3, INACTIVE = 0x0000dead, MAGIC = "LUKS\xba\xbe";

/** One of the passwords' places. Its key stands in `stripes` parts at sector `keyOffset`. */
export interface LuksSlot { readonly active: boolean; readonly iterations: number; readonly salt: Uint8Array; readonly keyOffset: number; readonly stripes: number }

/** What the header says: names as they stand in it, offsets in sectors. */
export interface LuksHeader {
  readonly cipher: string; readonly mode: string; readonly hash: string; readonly uuid: string;
  readonly payloadOffset: number; readonly keyBytes: number;
  readonly digest: Uint8Array; readonly salt: Uint8Array; readonly iterations: number;
  readonly slots: readonly LuksSlot[];
}

/** Reads the header that stands at `offset`. */
export function* readLuksHeader(file: Storage, offset: number): Task<LuksHeader> {
  const head = new Uint8Array(Header.size + LUKS_SLOTS * Slot.size);
  yield read(file, offset, head);
  const fields = Header.parse(head);
  if (String.fromCharCode(...fields.magic) !== MAGIC || fields.version !== 1) throw new DiskError("corrupt", "the encryption header is no LUKS header of version 1", { path: file.name, offset });
  const slots = Array.from({ length: LUKS_SLOTS }, (_, index) => {
    const slot = Slot.parse(head, Header.size + index * Slot.size);
    return { ...slot, active: slot.active === ACTIVE };
  });
  return { ...fields, cipher: text(fields.cipher), mode: text(fields.mode), hash: text(fields.hash), uuid: text(fields.uuid), slots };
}

/** Text up to the first NUL; what is not UTF-8 becomes the replacement character. */
function text(field: Uint8Array): string {
  const end = field.indexOf(0);
  return new TextDecoder().decode(end < 0 ? field : field.subarray(0, end));
}

/** The header's bytes. Names are ASCII. */
export function formatLuksHeader(header: LuksHeader): Uint8Array {
  const named = (name: string, length: number): Uint8Array => Uint8Array.from({ length }, (_, at) => (at < name.length ? name.charCodeAt(at) : 0));
  const into = new Uint8Array(Header.size + LUKS_SLOTS * Slot.size);
  into.set(Header.format({ ...header, magic: named(MAGIC, 6), version: 1, cipher: named(header.cipher, 32), mode: named(header.mode, 32), hash: named(header.hash, 32), uuid: named(header.uuid, 40) }));
  for (const [index, slot] of header.slots.entries()) into.set(Slot.format({ ...slot, active: slot.active ? ACTIVE : INACTIVE }), Header.size + index * Slot.size);
  return into;
}
