import { call, type Task } from "../task.ts";

/** AES of whole blocks of 16 bytes, each for itself. Answers new bytes. */
export interface BlockCipher {
  encrypt(bytes: Uint8Array): Uint8Array;
  decrypt(bytes: Uint8Array): Uint8Array;
}

/** What encrypted images need, as the host has it. */
export interface CryptoProvider {
  /** `key`: 16, 24 or 32 bytes. */
  aes(key: Uint8Array): BlockCipher;
  /** By LUKS's name of it (sha256, ripemd160, ...); `undefined`: there is none of that name. */
  hash(name: string): ((bytes: Uint8Array) => Uint8Array) | undefined;
  /** For keys and salts. */
  random(length: number): Uint8Array;
  /** PBKDF2 with HMAC; `hash` is one that `hash` knows. */
  pbkdf2(hash: string, password: Uint8Array, salt: Uint8Array, iterations: number, length: number): Uint8Array | Promise<Uint8Array>;
}

let load = async (): Promise<CryptoProvider> => (await import("./portable.ts")).portableCrypto;
let loaded: Promise<CryptoProvider> | undefined;

/** Node's entry point gives its own. It is loaded when an encrypted image is opened. */
export function setCrypto(loader: () => Promise<CryptoProvider>): void {
  load = loader;
  loaded = undefined;
}

/** The fastest there is here. */
export function* cryptoProvider(): Task<CryptoProvider> {
  return yield* call(() => (loaded ??= load()));
}
