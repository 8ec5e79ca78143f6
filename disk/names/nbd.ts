import { DiskError } from "../errors.ts";
import { PORT } from "../nbd/protocol.ts";

/** Where an NBD export is. Absent `export`: nothing was said of it, and the server's default one is meant. */
export interface NbdAddress {
  readonly server: { readonly type: "inet"; readonly host: string; readonly port: string } | { readonly type: "unix"; readonly path: string };
  readonly export: string | undefined;
}

const OLD_EXPORT = ":exportname=";
const fail = (what: string): never => { throw new DiskError("invalid-argument", what); };

/** Whether `name` is one of an NBD export: a URL (https://github.com/NetworkBlockDevice/nbd/blob/master/doc/uri.md), or `nbd:...` as QEMU once had it. */
export const isNbd = (name: string): boolean => /^nbds?(\+(tcp|unix|vsock))?:/i.test(name);

/** Whether its server is on the network, as far as the name tells. */
export const isRemoteNbd = (name: string): boolean => isNbd(name) && !/^nbd(\+unix|:unix):/i.test(name);

export function parseNbdName(name: string): NbdAddress {
  const url = /^([a-z+]+):\/\/([^/?#]*)([^?#]*)(?:\?(.*))?$/is.exec(name);
  if (url === null) return parseOld(name);
  const [, scheme = "", authority = "", path = "", query = ""] = url;
  const exported = decoded(path.replace(/^\/+/, ""), name), parameters = new Map(query.split("&").filter(Boolean).map((one) => [one.slice(0, one.indexOf("=")), decoded(one.slice(one.indexOf("=") + 1), name)]));
  if (/^nbds/i.test(scheme)) throw new DiskError("unsupported", `TLS is not there (${scheme}): use nbd, through a tunnel where the network is not yours`);
  if (/vsock/i.test(scheme)) throw new DiskError("unsupported", "vsock is not there: use TCP or a Unix socket");
  if (authority.includes("@")) throw new DiskError("unsupported", "user names are of use with TLS only, which is not there");
  const server = /unix/i.test(scheme) ? unixServer(authority, parameters) : inetServer(authority === "" ? "localhost" : authority, name);
  const [unknown] = parameters.keys();
  if (unknown !== undefined) fail(`unknown parameter '${unknown}' in '${name}'`);
  return { server, export: exported === "" ? undefined : exported };
}

/** `nbd:HOST:PORT[:exportname=NAME]`, `nbd:unix:PATH[:exportname=NAME]`. */
function parseOld(name: string): NbdAddress {
  const rest = name.slice(name.indexOf(":") + 1), at = rest.indexOf(OLD_EXPORT), place = at < 0 ? rest : rest.slice(0, at);
  const exported = at < 0 ? undefined : rest.slice(at + OLD_EXPORT.length);
  if (place.startsWith("unix:")) return { server: { type: "unix", path: place.slice("unix:".length) }, export: exported };
  if (!/:\d+$/.test(place)) fail(`'${name}' names no port: nbd:HOST:PORT[:exportname=NAME], or better nbd://HOST/NAME`);
  return { server: inetServer(place, name), export: exported };
}

function unixServer(authority: string, parameters: Map<string, string>): NbdAddress["server"] {
  const path = parameters.get("socket");
  parameters.delete("socket");
  if (authority !== "") fail("a Unix socket is on no host: nbd+unix:///NAME?socket=PATH");
  return path === undefined || path === "" ? fail("which Unix socket? nbd+unix:///NAME?socket=PATH") : { type: "unix", path };
}

function inetServer(authority: string, name: string): NbdAddress["server"] {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+))(?::(\d+))?$/.exec(authority) ?? fail(`'${name}' has no host, or more than one port`);
  return { type: "inet", host: decoded(bracketed ?? plain ?? "", name), port: port ?? String(PORT) };
}

/** The name that QEMU gives it. */
export function nbdTitle({ server, export: exported }: NbdAddress): string {
  if (server.type === "unix") return `nbd+unix://${exported === undefined ? "" : `/${exported}`}?socket=${server.path}`;
  const host = server.host.includes(":") ? `[${server.host}]` : server.host;
  return `nbd://${host}:${server.port}${exported === undefined ? "" : `/${exported}`}`;
}

function decoded(text: string, name: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return fail(`'${name}' has a '%' that begins no character: write %25 for one`);
  }
}
