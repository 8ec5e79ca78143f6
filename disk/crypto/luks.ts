import { DiskError } from "../errors.ts";
import type { Storage } from "../storage.ts";
import { call, read, type Task } from "../task.ts";
import { type LuksHeader, type LuksSlot, readLuksHeader } from "./luksHeader.ts";
import { type CryptoProvider, cryptoProvider } from "./provider.ts";
import { cbc, essivValues, type InitialValues, plainValues, SECTOR, type SectorCipher, xts } from "./sectors.ts";

/** What no honest header has: a hostile one must not keep us busy for hours. The specification has 4000 stripes. */
const LIMITS = { iterations: 2 ** 26 } as const;
/** In how many parts a slot keeps its key. */
export const LUKS_STRIPES = 4000;
const KEY_BYTES = new Set([16, 24, 32, 48, 64]);

/**
 * Unlocks the LUKS header at `offset` of `file`. Answers what the data is encrypted with. The LUKS on-disk format,
 * version 1.2.3, "Master key recovery". Where the password fits no slot the error is QEMU's.
 */
export function* unlockLuks(file: Storage, offset: number, length: number, password: Uint8Array): Task<SectorCipher> {
  const header = yield* readLuksHeader(file, offset), crypto = yield* cryptoProvider();
  const fail = (kind: "unsupported" | "corrupt", what: string): DiskError => new DiskError(kind, what, { path: file.name, offset });
  if (!KEY_BYTES.has(header.keyBytes)) throw fail("corrupt", `a LUKS key of ${header.keyBytes} bytes`);
  if (crypto.hash(header.hash) === undefined) throw fail("unsupported", `LUKS with hash ${header.hash}; sha1, sha2 and ripemd160 are possible`);
  for (const slot of header.slots.filter(({ active }) => active)) {
    if (slot.stripes !== LUKS_STRIPES || slot.keyOffset * SECTOR + slot.stripes * header.keyBytes > length) throw fail("corrupt", "a LUKS key slot that does not fit its header");
    if (Math.max(slot.iterations, header.iterations) > LIMITS.iterations) throw fail("unsupported", `a LUKS key slot of ${Math.max(slot.iterations, header.iterations)} iterations would take very long; at most ${LIMITS.iterations} are possible`);
    const key = yield* keyOf(file, offset, header, slot, crypto, password);
    if (key !== undefined) return sectorCipher(header, crypto, key, fail);
  }
  throw new DiskError("invalid-argument", "Invalid password, cannot unlock any keyslot", { path: file.name });
}

/** The master key, if the password is this slot's. */
function* keyOf(file: Storage, offset: number, header: LuksHeader, slot: LuksSlot, crypto: CryptoProvider, password: Uint8Array): Task<Uint8Array | undefined> {
  const { hash, keyBytes } = header, fail = (_: string, what: string): DiskError => new DiskError("unsupported", what, { path: file.name });
  const slotKey = yield* call(() => crypto.pbkdf2(hash, password, slot.salt, slot.iterations, keyBytes));
  const split = new Uint8Array(Math.ceil((keyBytes * slot.stripes) / SECTOR) * SECTOR);
  yield read(file, offset + slot.keyOffset * SECTOR, split);
  sectorCipher(header, crypto, slotKey, fail).decrypt(0, split);
  const key = merged(split, keyBytes, slot.stripes, crypto.hash(hash) ?? ((bytes) => bytes));
  const digest = yield* call(() => crypto.pbkdf2(hash, key, header.salt, header.iterations, header.digest.length));
  return digest.every((byte, at) => byte === header.digest[at]) ? key : undefined;
}

/** The anti-forensic splitter's other way: all parts together give the key. */
function merged(split: Uint8Array, length: number, stripes: number, hash: (bytes: Uint8Array) => Uint8Array): Uint8Array {
  let key = new Uint8Array(length);
  for (let stripe = 0; stripe < stripes; stripe++) {
    key = key.map((byte, at) => byte ^ (split[stripe * length + at] ?? 0));
    if (stripe + 1 < stripes) key = diffused(key, hash);
  }
  return key;
}

export function diffused(bytes: Uint8Array<ArrayBuffer>, hash: (bytes: Uint8Array) => Uint8Array): Uint8Array<ArrayBuffer> {
  const into = new Uint8Array(bytes.length);
  for (let at = 0, index = 0, size = 0; at < bytes.length; at += size, index++) {
    size = hash(new Uint8Array(0)).length;
    const part = bytes.subarray(at, at + size), numbered = new Uint8Array(4 + part.length);
    new DataView(numbered.buffer).setUint32(0, index);
    numbered.set(part, 4);
    into.set(hash(numbered).subarray(0, part.length), at);
  }
  return into;
}

/** `aes` with `xts-plain64`, `cbc-essiv:sha256` and their like. */
export function sectorCipher({ cipher, mode }: Pick<LuksHeader, "cipher" | "mode">, crypto: CryptoProvider, key: Uint8Array, fail: (kind: "unsupported", what: string) => DiskError): SectorCipher {
  const [chain, ...rest] = mode.split("-"), generator = rest.join("-"), half = key.length / 2;
  if (cipher !== "aes" || (chain !== "xts" && chain !== "cbc")) throw fail("unsupported", `LUKS with cipher ${cipher}-${mode}; aes with xts and cbc is possible`);
  if (chain === "xts" ? half !== 16 && half !== 32 : key.length > 32) throw fail("unsupported", `LUKS with a key of ${key.length * 8} bits for ${cipher}-${mode}`);
  const values = initialValues(generator, crypto, key);
  if (values === undefined) throw fail("unsupported", `LUKS with initial values '${generator}'; plain, plain64 and essiv are possible`);
  return chain === "xts" ? xts(crypto.aes(key.subarray(0, half)), crypto.aes(key.subarray(half)), values) : cbc(crypto.aes(key), values);
}

function initialValues(generator: string, crypto: CryptoProvider, key: Uint8Array): InitialValues | undefined {
  if (generator === "plain64") return plainValues(64);
  if (generator === "plain") return plainValues(32);
  const hash = generator.startsWith("essiv:") ? crypto.hash(generator.slice("essiv:".length)) : undefined, hashed = hash?.(key);
  return hashed === undefined || ![16, 24, 32].includes(hashed.length) ? undefined : essivValues(crypto.aes(hashed));
}

/** QEMU's legacy encryption: AES-128 in CBC, by the guest's sectors; no password is wrong. */
export function* legacyAes(password: Uint8Array): Task<SectorCipher> {
  const key = new Uint8Array(16), crypto = yield* cryptoProvider();
  key.set(password.subarray(0, 16));
  return cbc(crypto.aes(key), plainValues(64));
}
