import { bytes as field } from "../bytes/struct.ts";
import { DiskError } from "../errors.ts";
import { call, type Task } from "../task.ts";
import { diffused, LUKS_STRIPES, sectorCipher } from "./luks.ts";
import { formatLuksHeader, LUKS_SLOTS } from "./luksHeader.ts";
import { type CryptoProvider, cryptoProvider } from "./provider.ts";
import { SECTOR } from "./sectors.ts";

/** What a new LUKS header says, by QEMU's names. */
export interface LuksOptions {
  readonly keyBits: 128 | 256;
  readonly mode: "xts" | "cbc";
  /** `plain`, `plain64`, or `essiv:HASH`. */
  readonly generator: string;
  readonly hash: string;
  /** How long unlocking is to take on a machine like this one, in milliseconds. */
  readonly iterTime: number;
}

/** Slots begin at pages, after the header's own. */
const PAGE = 4096;
/** As few as QEMU makes, and as many as we open. */
const ITERATIONS = { min: 1000, max: 2 ** 26, probe: 2 ** 16 } as const;
const DIGEST = 20, SALT = 32;

/** A LUKS header with one password, and all its slots' room. */
export function* createLuks(options: LuksOptions, password: Uint8Array): Task<Uint8Array> {
  const crypto = yield* cryptoProvider(), { hash, mode } = options, keyBytes = (options.keyBits / 8) * (mode === "xts" ? 2 : 1);
  const room = Math.ceil((keyBytes * LUKS_STRIPES) / PAGE) * PAGE, into = new Uint8Array(PAGE + LUKS_SLOTS * room);
  if (crypto.hash(hash) === undefined) throw new DiskError("invalid-argument", `Parameter 'hash-alg' does not accept value '${hash}'`);
  const iterations = yield* iterationsFor(crypto, hash, options.iterTime), masterIterations = Math.max(ITERATIONS.min, Math.floor(iterations / 8));
  const key = crypto.random(keyBytes), salt = crypto.random(SALT), slotSalt = crypto.random(SALT);
  const head = { cipher: "aes", mode: `${mode}-${options.generator}`, hash, keyBytes };
  const digest = yield* call(() => crypto.pbkdf2(hash, key, salt, masterIterations, DIGEST)), slotKey = yield* call(() => crypto.pbkdf2(hash, password, slotSalt, iterations, keyBytes));
  const parts = split(key, crypto, hash);
  sectorCipher(head, crypto, slotKey, (kind, what) => new DiskError(kind, what)).encrypt(0, parts);
  into.set(parts, PAGE);
  const slots = Array.from({ length: LUKS_SLOTS }, (_, index) => ({
    active: index === 0, iterations: index === 0 ? iterations : 0, salt: index === 0 ? slotSalt : new Uint8Array(SALT), keyOffset: (PAGE + index * room) / SECTOR, stripes: LUKS_STRIPES,
  }));
  into.set(formatLuksHeader({ ...head, digest, salt, iterations: masterIterations, payloadOffset: into.length / SECTOR, uuid: uuid(crypto.random(16)), slots }));
  return into;
}

/** How often a password is hashed in half of `milliseconds`: a reader does it for the slot, and less often for the key. */
function* iterationsFor(crypto: CryptoProvider, hash: string, milliseconds: number): Task<number> {
  const began = Date.now();
  yield* call(() => crypto.pbkdf2(hash, new Uint8Array(16), new Uint8Array(SALT), ITERATIONS.probe, DIGEST));
  const each = Math.max(1, Date.now() - began) / ITERATIONS.probe;
  return Math.min(ITERATIONS.max, Math.max(ITERATIONS.min, Math.floor(milliseconds / 2 / each)));
}

/** The anti-forensic splitter: parts of which every one is needed. */
function split(key: Uint8Array, crypto: CryptoProvider, hash: string): Uint8Array {
  const length = key.length, parts = new Uint8Array(LUKS_STRIPES * length), last = (LUKS_STRIPES - 1) * length, hashOf = crypto.hash(hash);
  if (hashOf === undefined) throw new Error(`no hash ${hash}`);
  parts.set(crypto.random(last));
  let sum = new Uint8Array(length);
  for (let at = 0; at < last; at += length) sum = diffused(sum.map((byte, i) => byte ^ (parts[at + i] ?? 0)), hashOf);
  parts.set(key.map((byte, i) => byte ^ (sum[i] ?? 0)), last);
  return parts;
}

/** A random UUID (version 4) in its usual form. */
function uuid(random: Uint8Array): string {
  const bytes = field(16).get(new DataView(random.buffer, random.byteOffset, 16), 0, false);
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
