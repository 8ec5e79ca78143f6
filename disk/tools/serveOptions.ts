import type { Address } from "../nbd/server.node.ts";
import { MAX_STRING, PORT } from "../nbd/protocol.ts";
import { CACHES, SHARED } from "./arguments.ts";
import { type Call, CommandError, type OptionSpec } from "./verb.ts";

const NO_TLS = "this server has no TLS: use a tunnel (ssh -L) where the network is not yours";

export const SERVE_OPTIONS: readonly OptionSpec[] = [
  SHARED.format,
  { name: "read-only", short: "r", help: "clients may not change it" },
  { name: "snapshot", short: "s", help: "changes go to a temporary overlay, which is gone at the end" },
  { name: "load-snapshot", short: "l", value: "SNAPSHOT", help: "the disk of an internal snapshot, read-only" },
  { name: "offset", short: "o", value: "OFFSET", help: "only the disk's part from there on; k, M, G... may follow" },
  { name: "port", short: "p", value: "PORT", help: `the port; 0: any that is free; default: ${PORT}` },
  { name: "bind", short: "b", value: "ADDRESS", help: "the address to listen on; default: 127.0.0.1, this machine alone" },
  { name: "socket", short: "k", value: "PATH", help: "a Unix socket instead" },
  { name: "export-name", short: "x", value: "NAME", help: "what clients call it; default: the empty name" },
  { name: "description", short: "D", value: "TEXT", help: "what lists of exports say of it" },
  { name: "shared", short: "e", value: "NUM", help: "so many clients at a time, 0: any number; default: 1" },
  { name: "persistent", short: "t", help: "go on when the last client has left" },
  { name: "allocation-depth", short: "A", help: "offer the metadata context qemu:allocation-depth, too" },
  { name: "bitmap", short: "B", value: "NAME", help: "offer this dirty bitmap as the metadata context qemu:dirty-bitmap:NAME; may be repeated" },
  { name: "cache", value: "MODE", help: "writeback; writethrough, directsync: every change is durable before it is answered; unsafe: flushes do nothing" },
  { name: "discard", value: "MODE", help: "unmap: trims give space back; ignore: they do nothing; default: unmap" },
  { name: "pid-file", value: "PATH", help: "write the server's process ID there once it listens" },
  { name: "verbose", short: "v", help: "tell of clients as they come and go" },
  { ...SHARED.forceShare, help: "open it even while another program writes it; read-only" },
  { name: "nocache", short: "n", help: "as qemu-nbd's: accepted, makes no difference" },
  { name: "aio", value: "MODE", help: "as qemu-nbd's: accepted, makes no difference" },
  { name: "detect-zeroes", value: "off", help: "as qemu-nbd's; only off is possible" },
  { name: "connect", short: "c", value: "DEV", help: "", refused: "connect with nbd-client, as in: nbd-client 127.0.0.1 10809 /dev/nbd0" },
  { name: "disconnect", short: "d", value: "DEV", help: "", refused: "use nbd-client -d DEV" },
  { name: "list", short: "L", help: "", refused: "use nbdinfo --list URL" },
  { name: "fork", help: "", refused: "start it in the background (with & in a shell), and wait for its first line" },
  { name: "tls-creds", value: "ID", help: "", refused: NO_TLS },
  { name: "tls-authz", value: "ID", help: "", refused: NO_TLS },
  { name: "tls-hostname", value: "NAME", help: "", refused: NO_TLS },
  { name: "selinux-label", value: "LABEL", help: "", refused: "use runcon" },
  { name: "trace", short: "T", value: "EVENTS", help: "", refused: "use -v" },
  SHARED.imageOpts, SHARED.object,
];

/** Refuses values that mean nothing, and combinations that contradict each other. */
export function checkServeOptions(call: Call): void {
  const cache = call.value("cache") ?? "writeback", discard = call.value("discard") ?? "unmap", detect = call.value("detect-zeroes") ?? "off";
  if (!CACHES.has(cache)) throw new CommandError(`Invalid cache mode \`${cache}'`);
  if (!["unmap", "on", "ignore", "off"].includes(discard)) throw new CommandError(`Invalid discard mode \`${discard}'`);
  if (detect !== "off") throw new CommandError(`--detect-zeroes=${detect} is not supported: zeros are stored as they are written`);
  if (call.has("socket") && (call.has("port") || call.has("bind"))) throw new CommandError("a Unix socket (-k) has neither port nor address: leave out -p and -b, or -k");
  if (call.has("load-snapshot") && call.has("snapshot")) throw new CommandError("-s keeps changes, and an internal snapshot (-l) has none: leave out one of them");
  for (const option of ["export-name", "description"]) {
    if (Buffer.byteLength(call.value(option) ?? "") > MAX_STRING) throw new CommandError(`${option === "description" ? "description" : "export name"} is longer than ${MAX_STRING} bytes`);
  }
}

/** `-e`; `undefined`: as many as there is room for. */
export function sharedClients(call: Call): number | undefined {
  const text = call.value("shared") ?? "1";
  if (!/^\d{1,5}$/.test(text)) throw new CommandError(`Invalid shared device number '${text}'`);
  return Number(text) === 0 ? undefined : Number(text);
}

/** Where to listen: what systemd, or a client that starts its own server, has opened already; a Unix socket; a port. */
export function listenAddress(call: Call): Address {
  const socket = call.value("socket"), text = call.value("port") ?? String(PORT), port = Number(text);
  if (process.env["LISTEN_PID"] === String(process.pid) && process.env["LISTEN_FDS"] !== undefined) return activated(call);
  if (socket !== undefined) return { path: socket };
  if (!/^\d{1,5}$/.test(text) || port > 65535) throw new CommandError(`Invalid port '${text}': a number from 0 to 65535 is needed`);
  return { host: call.value("bind") ?? "127.0.0.1", port };
}

/** The first file descriptor that systemd hands over (sd_listen_fds(3)). */
const FIRST_FD = 3;

function activated(call: Call): Address {
  if (process.env["LISTEN_FDS"] !== "1") throw new CommandError("socket activation with several sockets is not supported");
  if (call.has("socket") || call.has("port") || call.has("bind")) throw new CommandError("with socket activation the socket is there already: leave out -k, -p and -b");
  return { fd: FIRST_FD };
}
