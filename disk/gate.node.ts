import { DiskError } from "./errors.ts";
import type { Gate, NamedImage } from "./gate.ts";
import type { NameAccess, Secrets } from "./names/access.ts";
import { fullName, isHttp, isPath, isPlainName, isRemote, resolveName } from "./names/paths.node.ts";
import type { Storage } from "./storage.ts";
import { FileStorage } from "./storage/file.node.ts";

export { fullName, isHttp, isPath, isPlainName, resolveName };

/** Opens what a name leads to, for reading: a file, a URL, or what `json:{...}` describes. What is rare is loaded only when it is needed. */
export async function openForReading(name: string, lock: boolean): Promise<Storage> {
  if (!isPlainName(name)) return await openNamed(name, { lock, gate: nodeGate({ lock }) });
  return await openPlain(resolveName(name, ""), lock);
}

/** Opens what a name leads to, for reading and writing. It must be there. */
export async function openForWriting(name: string, lock: boolean): Promise<Storage> {
  if (isPlainName(name)) return FileStorage.open(resolveName(name, ""), { mode: "write", lock });
  return await openNamed(name, { lock, writable: true, gate: nodeGate({ lock }) });
}

/** Opens a path or URL for reading. */
export async function openPlain(name: string, lock: boolean): Promise<Storage> {
  if (!isHttp(name)) return FileStorage.open(name, { lock });
  const { HttpStorage } = await import("./storage/http.ts");
  return await HttpStorage.open(name);
}

export interface NodeGateOptions {
  /** `false`: neither take nor respect locks. Default `true`. */
  readonly lock?: boolean | undefined;
  /** What the names of encrypted images may refer to. */
  readonly secrets?: Secrets | undefined;
  /** How many gates this one is below. */
  readonly depth?: number | undefined;
}

/** An image may be the file of another one, so deep that nobody means it. */
const DEEPEST = 8;

/** What the command line lets an image reach: what its user could. An image from the web reaches only the web. */
export function nodeGate({ lock = true, secrets, depth = 0 }: NodeGateOptions = {}): Required<Gate> {
  const accessFrom = (from: Storage, writable: boolean): NameAccess => {
    if (depth >= DEEPEST) throw new DiskError("unsupported", `images within images go more than ${DEEPEST} deep`, { path: from.name });
    return { lock, writable, secrets, webOnly: isRemote(from.name), gate: nodeGate({ lock, secrets, depth: depth + 1 }) };
  };
  const open = (name: string, from: Storage, readOnly = true): Storage | Promise<Storage> => {
    const full = fullName(name, from.name);
    if (!isPlainName(full)) return openNamed(full, accessFrom(from, !readOnly));
    const resolved = resolveName(full, "");
    if (isHttp(resolved)) {
      if (!readOnly) throw new DiskError("read-only", `'${name}' is on the web and cannot be written: put an overlay on the image`, { path: from.name });
      return openPlain(resolved, false);
    }
    if (isRemote(from.name)) throw new DiskError("unsupported", `an image from the web names the local file '${name}'`, { path: from.name });
    return FileStorage.open(resolved, { mode: readOnly ? "read" : "write", lock });
  };
  return {
    open,
    image(name, from, format, readOnly = true) {
      if (!isPlainName(fullName(name, from.name))) return namedImage(name, accessFrom(from, !readOnly), format);
      const storage = open(name, from, readOnly);
      return storage instanceof Promise ? storage.then((storage) => ({ storage, format })) : { storage, format };
    },
  };
}

/** The bytes that a name leads to. Only `json:` can name a format: what others lead to is not looked into. */
async function openNamed(name: string, access: NameAccess): Promise<Storage> {
  const { optionsOfName, openStorage } = await import("./names/nodes.node.ts");
  return await openStorage(optionsOfName(name, name.startsWith("json:") ? undefined : "raw"), access);
}

async function namedImage(name: string, access: NameAccess, format: string | undefined): Promise<NamedImage> {
  const { optionsOfName, openNode } = await import("./names/nodes.node.ts");
  return await openNode(optionsOfName(name, format), access);
}
