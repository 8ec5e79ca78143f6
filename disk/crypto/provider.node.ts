import { createCipheriv, createDecipheriv, createHash, pbkdf2, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import type { CryptoProvider } from "./provider.ts";

const HASHES = new Set(["sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160"]);
const derive = promisify(pbkdf2);

/** OpenSSL's, as Node has it. Without padding a cipher of single blocks has no state: one serves for ever. */
export const nodeCrypto: CryptoProvider = {
  aes(key) {
    const name = `aes-${key.length * 8}-ecb`, encryptor = createCipheriv(name, key, null).setAutoPadding(false), decryptor = createDecipheriv(name, key, null).setAutoPadding(false);
    return { encrypt: (bytes) => encryptor.update(bytes), decrypt: (bytes) => decryptor.update(bytes) };
  },
  hash: (name) => (HASHES.has(name) ? (bytes) => createHash(name).update(bytes).digest() : undefined),
  random: (length) => new Uint8Array(randomBytes(length)),
  pbkdf2: (hash, password, salt, iterations, length) => derive(password, salt, iterations, length, hash),
};
