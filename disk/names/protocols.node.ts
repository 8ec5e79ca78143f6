import { DiskError } from "../errors.ts";
import type { InfoObject } from "../formats/info.ts";
import type { Storage } from "../storage.ts";
import { FileStorage } from "../storage/file.node.ts";
import { PORT } from "../nbd/protocol.ts";
import type { NameAccess } from "./access.ts";
import { type NbdAddress, nbdTitle } from "./nbd.ts";
import type { NodeOptions } from "./options.ts";

/** What a protocol node's options led to. */
export interface OpenedStorage {
  readonly storage: Storage;
  /** The options that tell it from others, for `json:` names. */
  readonly options: InfoObject;
  /** A name that says all of them, if there is one. */
  readonly title: string | undefined;
}

/** Opens the node that `options` describe; it takes those it knows. */
type Protocol = (options: NodeOptions, access: NameAccess, driver: string) => OpenedStorage | Promise<OpenedStorage>;

/** Drivers that lead to bytes, by QEMU's names. */
export const PROTOCOLS: Readonly<Record<string, Protocol>> = {
  "file": openFile, "host_device": openFile, "http": openHttp, "https": openHttp, "null-co": openNull, "null-aio": openNull, "nbd": openNbd,
};

function openFile(options: NodeOptions, { lock, writable = false, webOnly = false }: NameAccess, driver: string): OpenedStorage {
  const filename = options.string("filename"), locking = options.word("locking", ["on", "off", "auto"]);
  // How QEMU does its I/O: nothing that anybody could see.
  for (const name of ["aio", "pr-manager"]) options.string(name);
  for (const name of ["drop-cache", "x-check-cache-dropped"]) options.boolean(name);
  options.size("aio-max-batch");
  if (filename === undefined) throw new DiskError("invalid-argument", `The '${driver}' block driver requires a file name`);
  if (webOnly) throw new DiskError("unsupported", `an image from the web names the local file '${filename}'`);
  const storage = FileStorage.open(filename, { mode: writable ? "write" : "read", lock: lock && locking !== "off" });
  if (driver === "host_device" && !storage.isDevice) {
    storage.close();
    throw new DiskError("invalid-argument", `'host_device' driver requires '${filename}' to be either a character or block device`);
  }
  return { storage, options: { driver: storage.isDevice ? "host_device" : "file", filename }, title: filename };
}

async function openHttp(options: NodeOptions, { writable = false }: NameAccess, driver: string): Promise<OpenedStorage> {
  const url = options.string("url"), timeout = options.size("timeout");
  options.size("readahead");
  for (const name of ["cookie", "cookie-secret", "username", "password-secret", "proxy-username", "proxy-password-secret"]) {
    if (options.take(name) !== undefined) throw new DiskError("unsupported", `the option '${name}' of ${driver} is not there yet: name an address that needs none`);
  }
  if (options.boolean("sslverify") === false) throw new DiskError("unsupported", "certificates are always verified: set NODE_EXTRA_CA_CERTS to trust one of your own");
  if (url === undefined) throw new DiskError("invalid-argument", "curl block driver requires an 'url' option");
  if (!url.startsWith(`${driver}://`)) throw new DiskError("invalid-argument", `${driver} curl driver cannot handle the URL '${url}' (does not start with '${driver}://')`);
  if (writable) throw new DiskError("read-only", "files on the web cannot be changed: download it, or put an overlay on it", { path: url });
  const { HttpStorage } = await import("../storage/http.ts");
  const storage = await HttpStorage.open(url, timeout === undefined ? {} : { timeout: timeout * 1000 });
  return { storage, options: { driver, url }, title: url };
}

async function openNbd(options: NodeOptions, { writable = false, webOnly = false }: NameAccess): Promise<OpenedStorage> {
  if (options.take("tls-creds") !== undefined || options.take("tls-hostname") !== undefined) throw new DiskError("unsupported", "TLS is not there: use a tunnel where the network is not yours");
  for (const name of ["reconnect-delay", "open-timeout"]) options.size(name);
  const address = { server: nbdServer(options), export: options.string("export") };
  if (webOnly && address.server.type === "unix") throw new DiskError("unsupported", `an image from elsewhere names the local socket '${address.server.path}'`);
  const { NbdStorage } = await import("../storage/nbd.ts"), { dialer } = await import("../nbd/dial.node.ts"), title = nbdTitle(address);
  const storage = await NbdStorage.open(title, dialer(address.server), { export: address.export, writable });
  return { storage, options: { driver: "nbd", server: address.server, ...(address.export === undefined ? {} : { export: address.export }) }, title };
}

/** `server.*`, or `host`, `port` and `path` as they were called before. */
function nbdServer(options: NodeOptions): NbdAddress["server"] {
  const child = options.child("server"), type = child.word("type", ["inet", "unix"]);
  const get = (name: string): string | undefined => child.string(name) ?? options.string(name);
  const path = get("path"), host = get("host"), port = get("port");
  child.finish("nbd", true);
  if (path !== undefined && host !== undefined) throw new DiskError("invalid-argument", "path and host may not be used at the same time");
  if (path !== undefined && type !== "inet") return { type: "unix", path };
  if (host !== undefined && type !== "unix") return { type: "inet", host, port: port ?? String(PORT) };
  throw new DiskError("invalid-argument", "NBD server address missing");
}

const GIB = 2 ** 30, SECTOR = 512;

async function openNull(options: NodeOptions, _access: NameAccess, driver: string): Promise<OpenedStorage> {
  const given = Object.fromEntries(options.entries().filter(([name]) => ["size", "latency-ns", "read-zeroes"].includes(name))) as InfoObject;
  const size = Math.ceil((options.size("size") ?? GIB) / SECTOR) * SECTOR;
  options.size("latency-ns");
  options.boolean("read-zeroes");
  const { NullStorage } = await import("../storage/null.ts");
  return { storage: new NullStorage(size, `${driver}://`), options: { driver, ...given }, title: Object.keys(given).length === 0 ? `${driver}://` : undefined };
}
