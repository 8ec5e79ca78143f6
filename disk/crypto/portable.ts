import { ecb } from "@noble/ciphers/aes.js";
import { ripemd160, sha1 } from "@noble/hashes/legacy.js";
import { pbkdf2Async } from "@noble/hashes/pbkdf2.js";
import { sha224, sha256, sha384, sha512 } from "@noble/hashes/sha2.js";
import { randomBytes } from "@noble/hashes/utils.js";
import type { CryptoProvider } from "./provider.ts";

const HASHES = { sha1, sha224, sha256, sha384, sha512, ripemd160 };
const isKnown = (name: string): name is keyof typeof HASHES => Object.hasOwn(HASHES, name);
/** As many random bytes as browsers give at once. */
const QUOTA = 65536;
const PLAIN = { disablePadding: true };

/** In JavaScript alone, for browsers: their own cryptography has no single blocks of AES. */
export const portableCrypto: CryptoProvider = {
  aes: (key) => ({ encrypt: (bytes) => ecb(key, PLAIN).encrypt(bytes), decrypt: (bytes) => ecb(key, PLAIN).decrypt(bytes) }),
  hash: (name) => (isKnown(name) ? HASHES[name] : undefined),
  random(length) {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += QUOTA) bytes.set(randomBytes(Math.min(QUOTA, length - at)), at);
    return bytes;
  },
  async pbkdf2(hash, password, salt, iterations, length) {
    if (!isKnown(hash)) throw new Error(`no hash ${hash}`);
    return await pbkdf2Async(HASHES[hash], password, salt, { c: iterations, dkLen: length });
  },
};
