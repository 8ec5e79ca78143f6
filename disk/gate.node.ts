import { DiskError } from "./errors.ts";
import type { Gate } from "./gate.ts";
import type { Storage } from "./storage.ts";
import { FileStorage } from "./storage/file.node.ts";

/** Whether `name` is a URL that we can read. */
export const isHttp = (name: string): boolean => /^https?:\/\//i.test(name);

/** QEMU takes a name with a colon before any slash for `protocol:...`. */
const protocolOf = (name: string): string | undefined => /^([^/:]+):/.exec(name)?.[1];

/**
 * A backing file's name as the image `from` means it: relative names are relative to the image. They are joined as
 * they stand, as QEMU does: the way up from a folder that is a symbolic link is the system's to find.
 */
export function fullName(name: string, from: string): string {
  if (protocolOf(name) !== undefined || name.startsWith("/")) return name;
  if (isHttp(from)) return new URL(name, from).href;
  return from.slice(0, from.lastIndexOf("/") + 1) + name;
}

/** `fullName` as what can be opened: a path or a URL. */
export function resolveName(name: string, from: string): string {
  const full = fullName(name, from), protocol = protocolOf(full);
  if (protocol === undefined || isHttp(full)) return full;
  if (protocol !== "file") throw new DiskError("unsupported", `the file '${name}' is named by protocol '${protocol}'; paths, file: and http(s): are possible`, { path: from });
  return full.startsWith("file://") ? decodeURIComponent(new URL(full).pathname) : full.slice("file:".length);
}

/** Opens a file or URL for reading. HTTP is loaded only when it is needed. */
export async function openForReading(name: string, lock: boolean): Promise<Storage> {
  if (!isHttp(name)) return FileStorage.open(name, { lock });
  const { HttpStorage } = await import("./storage/http.ts");
  return await HttpStorage.open(name);
}

/** What the command line lets an image reach: what its user could. An image from the web reaches only the web. */
export function nodeGate(options: { readonly lock?: boolean } = {}): Gate {
  return {
    open(name, from, readOnly = true) {
      const resolved = resolveName(name, from.name);
      if (isHttp(resolved)) {
        if (!readOnly) throw new DiskError("read-only", `'${name}' is on the web and cannot be written: put an overlay on the image`, { path: from.name });
        return openForReading(resolved, false);
      }
      if (isHttp(from.name)) throw new DiskError("unsupported", `an image from the web names the local file '${name}'`, { path: from.name });
      return FileStorage.open(resolved, { mode: readOnly ? "read" : "write", lock: options.lock ?? true });
    },
  };
}
