import { setU64 } from "../../bytes/struct.ts";
import { createLuks, type LuksOptions } from "../../crypto/luksCreate.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { CreateOption, CreateValues } from "../creation.ts";
import { writeRun } from "./bitmap-contents.ts";
import { CRYPT } from "./encryption.ts";
import { EXTENSION } from "./extensions.ts";
import { readHeader } from "./header.ts";
import { rewriteHeader } from "./header-write.ts";
import { Refcounts } from "./refcounts.ts";

/** In the order in which qemu-img lists a new image's options. */
export const ENCRYPTION_OPTIONS: readonly CreateOption[] = [
  { name: "encryption", type: "boolean", help: "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)" },
  { name: "encrypt.format", type: "string", help: "Encrypt the image, format choices: 'aes', 'luks'" },
  { name: "encrypt.key-secret", type: "string", help: "ID of secret providing qcow AES key or LUKS passphrase" },
  { name: "encrypt.cipher-alg", type: "string", help: "Name of encryption cipher algorithm" },
  { name: "encrypt.cipher-mode", type: "string", help: "Name of encryption cipher mode" },
  { name: "encrypt.ivgen-alg", type: "string", help: "Name of IV generator algorithm" },
  { name: "encrypt.ivgen-hash-alg", type: "string", help: "Name of IV generator hash algorithm" },
  { name: "encrypt.hash-alg", type: "string", help: "Name of encryption hash algorithm" },
  { name: "encrypt.iter-time", type: "number", help: "Time to spend in PBKDF in milliseconds" },
];

/** How a new image is to be encrypted; without `luks` it is the legacy AES. */
export interface NewEncryption { readonly password: Uint8Array; readonly luks?: LuksOptions }

/** What the options say, refused in QEMU's words. `secrets`: passwords by the ID that the options name. */
export function newEncryption(values: CreateValues, secrets: ReadonlyMap<string, Uint8Array> | undefined): NewEncryption | undefined {
  const given = Object.keys(values).filter((name) => name.startsWith("encrypt.")), old = values["encryption"] === true, format = values["encrypt.format"] ?? (old ? "aes" : undefined);
  if (old && values["encrypt.format"] !== undefined) throw refused("'encrypt.format' and its alias 'encryption' can't be used at the same time");
  if (format === undefined && given.length > 0) throw refused("Parameter 'encrypt.format' is missing");
  if (format === undefined) return undefined;
  if (format !== "aes" && format !== "luks") throw refused(`Parameter 'format' does not accept value '${String(format)}'`);
  const odd = given.find((name) => format === "aes" && name !== "encrypt.format" && name !== "encrypt.key-secret"), id = values["encrypt.key-secret"];
  if (odd !== undefined) throw refused(`Parameter '${odd}' is unexpected`);
  if (values["preallocation"] !== undefined && values["preallocation"] !== "off") throw new DiskError("unsupported", "an encrypted image cannot be preallocated: what was never written would read as noise", { format: "qcow2", operation: "create" });
  if (id === undefined) throw refused("Parameter 'encrypt.key-secret' is required for cipher");
  const password = secrets?.get(String(id));
  if (password === undefined) throw refused(`No secret with id '${String(id)}'`);
  return format === "aes" ? { password } : { password, luks: luksOptions(values) };
}

function luksOptions(values: CreateValues): LuksOptions {
  const word = <T extends string>(name: string, allowed: readonly T[], usual: T): T => {
    const value = values[`encrypt.${name}`] ?? usual, found = allowed.find((one) => one === value);
    if (found === undefined) throw refused(`Parameter '${name}' does not accept value '${String(value)}' here; possible are ${allowed.join(", ")}`);
    return found;
  };
  const mode = word("cipher-mode", ["xts", "cbc"], "xts"), generator = word("ivgen-alg", ["plain64", "plain", "essiv"], "plain64"), hashes = ["sha256", "sha1", "sha224", "sha384", "sha512", "ripemd160"] as const;
  const essiv = word("ivgen-hash-alg", ["sha256"], "sha256"), iterTime = Number(values["encrypt.iter-time"] ?? 2000);
  if (!(iterTime > 0 && iterTime < 2 ** 32)) throw refused("Parameter 'iter-time' expects a positive number of milliseconds");
  return { mode, hash: word("hash-alg", hashes, "sha256"), generator: generator === "essiv" ? `essiv:${essiv}` : generator, keyBits: word("cipher-alg", ["aes-256", "aes-128"], "aes-256") === "aes-256" ? 256 : 128, iterTime };
}

/** Makes an image that was just created, and is empty still, an encrypted one. */
export function* encryptNew(file: Storage, { password, luks }: NewEncryption): Task {
  if (luks === undefined) {
    yield* rewriteHeader(file, (draft) => { draft.crypt = CRYPT.aes; });
    return;
  }
  const header = yield* readHeader(file), refcounts = yield* Refcounts.open(file, header, 2 ** 20), bytes = yield* createLuks(luks, password);
  const offset = yield* writeRun(file, refcounts, header.clusterSize, bytes, []), data = new Uint8Array(16), view = new DataView(data.buffer);
  setU64(view, 0, offset);
  setU64(view, 8, bytes.length);
  yield* refcounts.writeBack();
  yield* rewriteHeader(file, (draft) => {
    draft.crypt = CRYPT.luks;
    draft.extensions.unshift({ type: EXTENSION.encryption, data });
  });
}

function refused(what: string): DiskError {
  return new DiskError("invalid-argument", what, { format: "qcow2", operation: "create" });
}
