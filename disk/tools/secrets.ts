import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { setCrypto } from "../crypto/provider.ts";
import type { Secrets } from "../names/access.ts";
import { type NodeOptions, optionsFromJson, optionsFromPairs } from "../names/options.ts";
import { CommandError } from "./verb.ts";

/** More than any password. */
const LARGEST = 1 << 20;

/** What --object defines: `secret,id=ID,data=TEXT` or `secret,id=ID,file=FILE`, with `format=base64` perhaps; or the same as JSON. */
export function readSecrets(definitions: readonly string[]): Secrets {
  const secrets = new Map<string, Uint8Array>();
  // Whoever names a password is about to need it.
  setCrypto(async () => (await import("../crypto/provider.node.ts")).nodeCrypto);
  for (const text of definitions) {
    const options = text.startsWith("{") ? optionsFromJson(text) : optionsFromPairs(text, "qom-type");
    const type = options.string("qom-type"), id = options.string("id");
    if (type !== "secret") throw new CommandError(`Parameter 'qom-type' does not accept value '${type ?? ""}': only secrets can be defined`);
    if (id === undefined) throw new CommandError("Parameter 'id' is missing");
    if (!/^[a-z][a-z0-9._-]*$/i.test(id)) throw new CommandError("Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
    if (secrets.has(id)) throw new CommandError(`attempt to add duplicate property '${id}' to object (type 'container')`);
    secrets.set(id, readSecret(options));
  }
  return secrets;
}

function readSecret(options: NodeOptions): Uint8Array {
  const data = options.string("data"), file = options.string("file"), format = options.word("format", ["raw", "base64"]) ?? "raw";
  if (options.has("keyid") || options.has("iv")) throw new CommandError("secrets that are encrypted themselves (keyid, iv) are not supported: give this one plainly, in a file");
  const [extra] = options.entries();
  if (extra !== undefined) throw new CommandError(`Parameter '${extra[0]}' is unexpected`);
  if (data !== undefined && file !== undefined) throw new CommandError("'file' and 'data' are mutually exclusive");
  if (data === undefined && file === undefined) throw new CommandError("Either 'file' or 'data' must be provided");
  const bytes = file === undefined ? Buffer.from(data ?? "", "utf8") : readSecretFile(file);
  return format === "base64" ? fromBase64(bytes.toString("latin1")) : bytes;
}

function readSecretFile(file: string): Buffer {
  try {
    const bytes = readFileSync(file);
    if (bytes.length <= LARGEST) return bytes;
  } catch (error) {
    throw new CommandError(`Unable to read ${file}: ${error instanceof Error ? error.message : String(error)}`, 1, { cause: error });
  }
  throw new CommandError(`Unable to read ${file}: it is too large for a password`);
}

function fromBase64(text: string): Uint8Array {
  const packed = text.replaceAll(/\s/g, "");
  if (packed.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(packed)) throw new CommandError("Base64 data contains invalid characters");
  return Buffer.from(packed, "base64");
}
