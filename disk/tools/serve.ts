import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { DiskError } from "../errors.ts";
import { createQcow2 } from "../formats/qcow2/create.ts";
import { isHttp, isPath } from "../gate.node.ts";
import type { Export } from "../nbd/export.ts";
import { type Address, NbdServer } from "../nbd/server.node.ts";
import { FileStorage } from "../storage/file.node.ts";
import { run } from "../task.ts";
import { onlyFile } from "./arguments.ts";
import { openImageDisk, type OpenedDisk } from "./images.ts";
import { exportOf } from "./serveExport.ts";
import { checkServeOptions, listenAddress, SERVE_OPTIONS, sharedClients } from "./serveOptions.ts";
import { formatSize } from "./sizes.ts";
import { parseSnapshot } from "./snapshotOption.ts";
import type { Call, Verb } from "./verb.ts";

export const serve: Verb = {
  usage: "[-f FMT] [-r] [-p PORT | -k SOCKET] [-x NAME] [-e NUM] [-t] FILE|URL",
  about: `Serves an image, with all it stands on, as a network block device (NBD), for qemu-img, nbdcopy, fio, nbd-client and any
other client; options are qemu-nbd's. It ends when the last client has left, with -t when it is stopped (Ctrl-C). An
image that cannot be written is served read-only.`,
  examples: [
    ["disk86 serve -t disk.qcow2", "at nbd://127.0.0.1:10809, until it is stopped"],
    ["disk86 serve -r -k /tmp/disk.sock disk.vmdk", "read-only, at nbd+unix:///?socket=/tmp/disk.sock"],
    ["disk86 serve -t -s -e 0 base.qcow2", "any number of clients, whose changes are temporary"],
    ["nbdinfo -- [ disk86 serve -r disk.qcow2 ]", "for one command, on a socket of its own"],
  ],
  options: SERVE_OPTIONS,
  run: runServe,
};

async function runServe(call: Call): Promise<number> {
  const file = onlyFile(call), clients = sharedClients(call), address = listenAddress(call);
  checkServeOptions(call);
  const { disk, guessed, folder } = await openServed(call, file);
  try {
    const offer = await exportOf(call, disk, clients !== 1);
    // The overlay stays for as long as it is open.
    if (folder !== undefined) rmSync(folder, { recursive: true });
    if (guessed && disk.chain[0].format === "raw" && !disk.readOnly) call.output.error(`WARNING: Image format was not specified for '${file}' and probing guessed raw.\nSpecify it with -f raw: what a client writes could look like another format.\n`);
    await serveUntilEnd(call, offer, address, clients, `${file} (${disk.chain[0].format}, ${formatSize(disk.size)}${disk.readOnly ? ", read-only" : ""})`);
  } finally {
    // Flushes too.
    await disk.close();
  }
  return 0;
}

/** `folder`: of a temporary overlay. */
interface Served extends OpenedDisk { readonly folder?: string }

async function openServed(call: Call, file: string): Promise<Served> {
  const format = call.value("format"), lock = !call.has("force-share"), load = call.value("load-snapshot");
  if (call.has("snapshot")) return temporaryOverlay(file, format, lock);
  if (load !== undefined) return openImageDisk(file, format, { lock, snapshot: parseSnapshot(load) });
  if (call.has("read-only") || !lock || isHttp(file)) return openImageDisk(file, format, { lock });
  try {
    return await openImageDisk(file, format, { lock, writable: true });
  } catch (error) {
    if (!(error instanceof DiskError) || error.kind !== "read-only") throw error;
    call.output.error(`disk86: ${error.message}; it is served read-only\n`);
    return openImageDisk(file, format, { lock });
  }
}

/** `-s`: an overlay among the system's temporary files. */
async function temporaryOverlay(file: string, format: string | undefined, lock: boolean): Promise<Served> {
  const base = await openImageDisk(file, format, { lock }), { size, chain: [{ format: backingFormat }] } = base.disk;
  await base.disk.close();
  const folder = mkdtempSync(join(tmpdir(), "disk86-")), path = join(folder, "overlay.qcow2");
  try {
    const overlay = FileStorage.open(path, { mode: "create" });
    await run(createQcow2(overlay, { size, backingFile: isPath(file) ? resolve(file) : file, backingFormat }));
    overlay.close();
    return { ...await openImageDisk(path, "qcow2", { lock, writable: true }), folder };
  } catch (error) {
    rmSync(folder, { recursive: true });
    throw error;
  }
}

/** Serves until a signal comes, or until the last client has left. */
async function serveUntilEnd(call: Call, offer: Export, address: Address, clients: number | undefined, what: string): Promise<void> {
  const { output } = call, pidFile = call.value("pid-file"), persistent = call.has("persistent");
  const over = new Over();
  const server = await NbdServer.listen(offer, address, {
    clients, idle: () => { if (!persistent) over.end(); },
    log: call.has("verbose") ? (line) => { output.error(`${line}\n`); } : undefined,
    failed: (error) => { output.error(`disk86: ${error instanceof Error ? error.message : String(error)}\n`); },
  });
  try {
    if (pidFile !== undefined) writeFileSync(pidFile, `${process.pid}\n`);
    output.out(`serving ${what} at ${urlOf(address, server.port, offer.name)}${persistent ? "" : " until the last client has left (-t: for longer)"}\n`);
    await over.ended;
  } finally {
    await server.close();
    over.forget();
    if (pidFile !== undefined) rmSync(pidFile, { force: true });
  }
}

function urlOf(address: Address, port: number | undefined, name: string): string {
  const path = `/${encodeURIComponent(name)}`;
  if ("fd" in address) return "the socket it was given";
  if ("path" in address) return `nbd+unix://${path}?socket=${encodeURI(address.path)}`;
  const host = address.host.includes(":") ? `[${address.host}]` : address.host;
  return `nbd://${host}:${port}${name === "" ? "" : path}`;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** The first signal ends the server in order; the next one does what it always does. */
class Over {
  readonly ended: Promise<void>;
  end: () => void = () => undefined;
  readonly #stop = (): void => {
    this.forget();
    this.end();
  };

  constructor() {
    this.ended = new Promise((resolve) => { this.end = resolve; });
    for (const signal of SIGNALS) process.on(signal, this.#stop);
  }

  forget(): void {
    for (const signal of SIGNALS) process.off(signal, this.#stop);
  }
}
