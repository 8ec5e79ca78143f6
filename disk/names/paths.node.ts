import { DiskError } from "../errors.ts";
import { isNbd, isRemoteNbd } from "./nbd.ts";

/** Whether `name` is a URL that we can read. */
export const isHttp = (name: string): boolean => /^https?:\/\//i.test(name);

/** Whether the image called `name` comes from elsewhere, and may be anybody's. */
export const isRemote = (name: string): boolean => isHttp(name) || isRemoteNbd(name);

/** QEMU takes a name with a colon before any slash for `protocol:...`; one letter is a drive of Windows. */
const protocolOf = (name: string): string | undefined => /^([^/:]{2,}):/.exec(name)?.[1];

/** Whether `resolveName` can say what a name leads to: a path or a URL. Other names have to be read by `nodes.node.ts`. */
export function isPlainName(name: string): boolean {
  const protocol = protocolOf(name);
  return protocol === undefined || protocol === "file" || isHttp(name);
}

/** Whether `name` is a path of this machine, which may be relative. */
export const isPath = (name: string): boolean => isPlainName(name) && !isHttp(name);

/**
 * A backing file's name as the image `from` means it: relative names are relative to the image. They are joined as
 * they stand, as QEMU does: the way up from a folder that is a symbolic link is the system's to find.
 */
export function fullName(name: string, from: string): string {
  if (protocolOf(name) !== undefined || name.startsWith("/")) return name;
  if (isHttp(from)) return new URL(name, from).href;
  if (isNbd(from)) throw new DiskError("unsupported", `it names '${name}', but an NBD export is in no folder: use names that say all`, { path: from });
  return from.slice(0, from.lastIndexOf("/") + 1) + name;
}

/** `fullName` as what can be opened: a path or a URL. */
export function resolveName(name: string, from: string): string {
  const full = fullName(name, from), protocol = protocolOf(full);
  if (protocol === undefined || isHttp(full)) return full;
  if (protocol !== "file") throw new DiskError("unsupported", `Unknown protocol '${protocol}' of the file '${name}'; one of that very name is ./${name}`, from === "" ? {} : { path: from });
  return full.startsWith("file://") ? decodeURIComponent(new URL(full).pathname) : full.slice("file:".length);
}
