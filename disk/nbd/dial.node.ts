import { connect, type NetConnectOpts } from "node:net";
import { DiskError } from "../errors.ts";
import { ConnectionLost, type Dial } from "./client.ts";
import { SocketWire } from "./socket.node.ts";

/** A server's address, as QEMU has it. */
export type ServerAddress = { readonly type: "inet"; readonly host: string; readonly port: string } | { readonly type: "unix"; readonly path: string };

/** What one system call brings at most. */
const BUFFER = 256 << 10;

/** Connects to the server at `address`. */
export function dialer(address: ServerAddress): Dial {
  const to: NetConnectOpts = address.type === "unix" ? { path: address.path } : { host: address.host, port: portOf(address.port) };
  return (events) => new Promise((resolve, reject) => {
    let wire: SocketWire | undefined;
    // Read into one buffer over and over: the receiver copies what it needs.
    const buffer = Buffer.allocUnsafeSlow(BUFFER);
    const socket = connect({ ...to, onread: { buffer, callback: (count) => { events.data(buffer.subarray(0, count)); return true; } } });
    socket.once("connect", () => {
      socket.removeAllListeners("error");
      wire = new SocketWire(socket);
      wire.start({ data: () => undefined, drained: () => { events.drained(); }, closed: (error) => { events.closed(error); } });
      resolve(wire);
    });
    socket.once("error", (error: NodeJS.ErrnoException) => { reject(refusal(error)); });
  });
}

function portOf(text: string): number {
  const port = Number(text);
  if (!/^\d{1,5}$/.test(text) || port > 65535 || port === 0) throw new DiskError("invalid-argument", `'${text}' is no port: a number up to 65535 is needed`);
  return port;
}

function refusal(error: NodeJS.ErrnoException): DiskError {
  if (error.code === "ENOENT") return new DiskError("not-found", "there is no such socket: start the server, or check the path", {}, error);
  if (error.code === "ECONNREFUSED") return new ConnectionLost("not-found", "nobody listens there: start the server, or check the address", {}, error);
  if (error.code === "ENOTFOUND" || error.code === "EAI_AGAIN") return new DiskError("not-found", "no such host: check the name, and the network", {}, error);
  if (error.code === "EACCES") return new DiskError("io", "no permission to use the socket", {}, error);
  return new ConnectionLost("io", `cannot connect: ${error.message}`, {}, error);
}
