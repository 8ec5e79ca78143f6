import { spawn } from "node:child_process";
import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { dialer } from "../../disk/nbd/dial.node.ts";
import type { Export } from "../../disk/nbd/export.ts";
import { NbdServer } from "../../disk/nbd/server.node.ts";
import { createOverlay, openImage } from "../../disk/index.node.ts";
import { open } from "../../disk/open.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { all, type Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { NbdStorage, type NbdOptions } from "../../disk/storage/nbd.ts";
import { run } from "../../disk/task.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { anyChange, anyRange, expectSame, ModelDisk } from "../support/model.ts";
import { type NbdPeer, nbdUrl, socketPath, startNbdkit, startQemuNbd } from "../support/nbd.ts";
import { seeded } from "../support/random.ts";
import { freePort } from "../support/nginx.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const MIB = 2 ** 20, SIZE = 6 * MIB;
const folder = tempFolder(), home = process.cwd();
const at = (name: string): string => join(folder, name);
const STEPS = process.env["LONG"] ? 600 : 120;

const opened: Storage[] = [], peers: { stop(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of opened.splice(0)) await one.close();
  for (const one of peers.splice(0)) await one.stop();
});

async function connect(socket: string, options: NbdOptions = { writable: true }): Promise<NbdStorage> {
  const storage = await NbdStorage.open(nbdUrl(socket), dialer({ type: "unix", path: socket }), options);
  opened.push(storage);
  return storage;
}

async function started(peer: Promise<NbdPeer>): Promise<string> {
  peers.push(await peer);
  return (await peer).socket;
}

function image(name: string, format: string, size: string | number, ...commands: string[]): string {
  runTool("qemu-img", ["create", "-q", "-f", format, at(name), String(size)]);
  if (commands.length > 0) runTool("qemu-io", ["-f", format, ...commands.flatMap((command) => ["-c", command]), at(name)]);
  return at(name);
}

/** Our own server, in this process. */
async function ourServer(storage: Storage): Promise<string> {
  const path = socketPath(folder);
  const offer: Export = {
    name: "", description: undefined, storage, readOnly: false, preferred: 4096, shared: true, writeThrough: false,
    // oxlint-disable-next-line require-yield -- all of it is data
    contexts: [{ name: "base:allocation", *extent(_, length) { return { length, flags: 0 }; } }],
  };
  const server = await NbdServer.listen(offer, { path });
  peers.push({ stop: () => server.close() });
  return path;
}

async function scribble(random: Parameters<Parameters<typeof seeded>[1]>[0], disk: Disk): Promise<ModelDisk> {
  const initial = new Uint8Array(disk.size);
  await disk.read(0, initial);
  const model = new ModelDisk(disk, initial);
  for (let step = 0; step < STEPS; step++) {
    // Several at once, which may overlap.
    await all(Array.from({ length: random.int(4) }, () => anyChange(random, model, 400_000)));
    const { offset, length } = anyRange(random, disk.size);
    if (random.chance(0.3)) await model.compare(offset, length);
    if (random.chance(0.1)) await disk.flush();
  }
  await disk.flush();
  await model.compare();
  return model;
}

describe.skipIf(!requireTool("qemu-img", "qemu-io", "qemu-nbd", "nbdkit"))("NBD exports as storages", () => {
  const SERVERS: readonly (readonly [name: string, start: () => Promise<string>])[] = [
    ["qemu-nbd", () => started(startQemuNbd(folder, "-f", "raw", image("plain.raw", "raw", SIZE)))],
    ["qemu-nbd of a qcow2", () => started(startQemuNbd(folder, "-f", "qcow2", image("some.qcow2", "qcow2", SIZE)))],
    ["our own", () => ourServer(new MemoryStorage(new Uint8Array(SIZE)))],
    ["nbdkit", () => started(startNbdkit(folder, "memory", String(SIZE)))],
    ["nbdkit with blocks of 4 KiB and requests of 64 KiB", () => started(startNbdkit(folder, "--filter=blocksize-policy", "memory", String(SIZE), "blocksize-minimum=4096", "blocksize-preferred=4096", "blocksize-maximum=65536", "blocksize-error-policy=error"))],
    ["nbdkit without zeros, trims, extents and structured replies", () => started(startNbdkit(folder, "--no-sr", "--filter=nozero", "--filter=noextents", "memory", String(SIZE)))],
    ["nbdkit that answers late, and out of order", () => started(startNbdkit(folder, "--filter=delay", "memory", String(SIZE), "rdelay=2ms", "wdelay=1ms"))],
  ];
  describe.each(SERVERS)("%s", (_, start) => {
    seeded("takes changes and gives them back", async (random) => {
      const socket = await start(), disk = await open(await connect(socket), { format: "raw" });
      const model = await scribble(random, disk);
      // As another client sees it.
      const again = new Uint8Array(SIZE);
      await (await connect(socket, {})).read(0, again);
      expectSame(again, model.bytes);
      await disk.close();
    });
  });

  seeded("a qcow2 lives on an export", async (random) => {
    const socket = await started(startNbdkit(folder, "--filter=blocksize-policy", "memory", "40M", "blocksize-minimum=512", "blocksize-error-policy=error"));
    const file = await connect(socket);
    // What is made in memory is copied there: an export has a fixed size.
    const made = new MemoryStorage();
    await run(createQcow2(made, { size: SIZE, clusterSize: 4096 }));
    await file.write(0, made.bytes);
    const disk = await open(file, { format: "qcow2" }), model = await scribble(random, disk);
    await disk.close();
    runTool("qemu-img", ["check", "-f", "qcow2", nbdUrl(socket)]);
    runTool("qemu-img", ["convert", "-f", "qcow2", "-O", "raw", nbdUrl(socket), at("from.raw")]);
    expectSame(new Uint8Array(readFileSync(at("from.raw"))), model.bytes);
  });

  test("where a server cuts requests short the pieces fit together", async () => {
    const bytes = Uint8Array.from({ length: MIB }, (_, i) => (i * 7) % 251);
    writeFileSync(at("pieces.raw"), bytes);
    const socket = await started(startNbdkit(folder, "--filter=blocksize-policy", "file", at("pieces.raw"), "blocksize-minimum=1024", "blocksize-preferred=4096", "blocksize-maximum=65536", "blocksize-error-policy=error"));
    const storage = await connect(socket, {}), into = new Uint8Array(300_001);
    await storage.read(777, into);
    expectSame(into, bytes.subarray(777, 777 + into.length));
    const tail = new Uint8Array(5000).fill(9);
    await storage.read(MIB - 1000, tail);
    expectSame(tail, Uint8Array.from([...bytes.subarray(-1000), ...new Uint8Array(4000)]));
  });

  test("an error of the server is told as what it is", async () => {
    const socket = await started(startNbdkit(folder, "--filter=error", "memory", String(SIZE), "error-pread=EIO", "error-pread-rate=100%", "error-pwrite=ENOSPC", "error-pwrite-rate=100%"));
    const storage = await connect(socket);
    await expect(storage.read(512, new Uint8Array(512))).rejects.toMatchObject({ kind: "io", message: expect.stringMatching(/read: the server could not do it .*0x200/) });
    await expect(storage.write(512, new Uint8Array(512))).rejects.toMatchObject({ kind: "no-space" });
    await storage.flush();
    expect(() => storage.write(SIZE - 1, new Uint8Array(2))).toThrow(/cannot grow/);
    expect(() => storage.truncate(SIZE + 1)).toThrow(/change it there/);
  });

  test("a server that allows no writes, an export that is not there, a server that wants TLS", async () => {
    const socket = await started(startQemuNbd(folder, "-r", "-x", "this", "-f", "raw", image("ro.raw", "raw", SIZE)));
    await expect(connect(socket, { writable: true, export: "this" })).rejects.toMatchObject({ kind: "read-only" });
    await expect(connect(socket, { export: "other" })).rejects.toMatchObject({ kind: "not-found", message: expect.stringContaining("no export 'other'") });
    expect((await connect(socket, { export: "this" })).size).toBe(SIZE);
    await expect(connect(at("nothing.sock"))).rejects.toMatchObject({ kind: "not-found" });
  });

  test("a server that goes away and comes back: reads go on, a writer is told", async () => {
    const path = image("comes.raw", "raw", SIZE, "write -q -P 5 0 1M"), first = await startQemuNbd(folder, "-f", "raw", path), { socket } = first;
    const reader = await connect(socket, { backoff: 50 }), writer = await connect(socket), into = new Uint8Array(4096);
    await reader.read(0, into);
    await first.stop();
    rmSync(socket, { force: true });
    const waiting = reader.read(4096, into.fill(0));
    const second = spawn("qemu-nbd", ["-t", "-e", "8", "-f", "raw", "-k", socket, path], { stdio: "ignore" });
    await waiting;
    expect(into.every((byte) => byte === 5)).toBe(true);
    await expect(writer.read(0, into)).rejects.toMatchObject({ kind: "io", message: expect.stringContaining("closed the connection") });
    await expect(writer.write(0, into)).rejects.toMatchObject({ kind: "io" });
    await expect(writer.flush()).rejects.toMatchObject({ kind: "io" });
    second.kill();
  });

  test("a server that is gone for good ends in an error, not in silence", async () => {
    const peer = await startNbdkit(folder, "memory", String(SIZE)), storage = await connect(peer.socket, { backoff: 5 });
    // In order it would end only with its last client.
    peer.child.kill("SIGKILL");
    await expect(storage.read(0, new Uint8Array(10))).rejects.toMatchObject({ kind: "io", message: expect.stringContaining("tried 3 times to connect again") });
  });
});

describe.skipIf(!requireTool("qemu-img", "qemu-io", "qemu-nbd"))("verbs on NBD names, as qemu-img", () => {
  const urls: Record<string, string> = {};
  const servers: NbdPeer[] = [];

  beforeAll(async () => {
    process.chdir(folder);
    image("v.raw", "raw", "20M", "write -q -P 1 1M 64k", "write -q -P 2 5M 12k", "write -q -P 3 19M 1M");
    image("v.qcow2", "qcow2", "20M", "write -q -P 1 1M 64k", "write -q -z 2M 1M", "write -q -P 3 19M 1M");
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", at("v.raw"), "-F", "raw", at("over.qcow2")]);
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "v.raw", "-F", "raw", at("relative.qcow2")]);
    image("v.vdi", "vdi", "20M", "write -q -P 1 1M 64k");
    copyFileSync("v.raw", "copy.raw");
    const add = async (name: string, ...args: string[]): Promise<void> => {
      const server = await startQemuNbd(folder, "-r", ...args);
      servers.push(server);
      urls[name] = server.socket;
    };
    for (const name of ["v.raw", "v.qcow2", "over.qcow2", "relative.qcow2", "v.vdi"]) await add(name, "-f", "raw", at(name));
    await add("disk", "-f", "qcow2", "-x", "the disk", at("v.qcow2"));
  });
  afterAll(async () => {
    process.chdir(home);
    for (const server of servers) await server.stop();
  });

  const FORMS: Readonly<Record<string, (socket: string, name?: string) => string>> = {
    "nbd+unix": (socket, name = "") => `nbd+unix:///${encodeURIComponent(name)}?socket=${socket}`,
    "nbd:unix": (socket, name) => `nbd:unix:${socket}${name === undefined ? "" : `:exportname=${name}`}`,
    "json of a file": (socket, name) => `json:{"driver":"raw","file":{"driver":"nbd","server":{"type":"unix","path":"${socket}"}${name === undefined ? "" : `,"export":"${name}"`}}}`,
    "json of bytes": (socket, name) => `json:{"driver":"nbd","server.type":"unix","server.path":"${socket}"${name === undefined ? "" : `,"export":"${name}"`}}`,
  };

  async function expectSameOutput(verb: string, args: readonly string[]): Promise<void> {
    const wanted = qemuImg(verb, ...args), ours = await disk86(verb, ...args);
    expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
  }

  const VERBS = ["info", "info --output=json", "info --backing-chain", "map", "map --output=json", "map -s 600k -l 3M --output=json", "check", "check --output=json"];
  describe.each(["v.raw", "v.qcow2", "over.qcow2", "relative.qcow2", "v.vdi"])("%s", (name) => {
    // A check of one image needs none below it, which QEMU looks for.
    test.each(VERBS.filter((line) => name !== "relative.qcow2" || !line.startsWith("check")))("%s", async (line) => {
      const [verb = "", ...options] = line.split(" ");
      await expectSameOutput(verb, [...options, nbdUrl(urls[name] ?? "")]);
    });
  });

  describe.each(Object.keys(FORMS))("%s", (form) => {
    test.each([["v.raw", undefined], ["disk", "the disk"]])("%s", async (name, exported) => {
      const url = FORMS[form]?.(urls[name] ?? "", exported) ?? "";
      await expectSameOutput("info", [url]);
      await expectSameOutput("info", ["--output=json", url]);
      await expectSameOutput("map", ["--output=json", url]);
    });
  });

  test.each([["v.raw", "copy.raw", ""], ["v.raw", "copy.raw", "-s"], ["disk", "v.raw", ""], ["v.qcow2", "v.qcow2", ""], ["v.vdi", "v.vdi", "-s"]])("compare %s with the file %s %s", async (name, file, option) => {
    await expectSameOutput("compare", ["-U", ...(option === "" ? [] : [option]), FORMS["nbd+unix"]?.(urls[name] ?? "", name === "disk" ? "the disk" : "") ?? "", at(file)]);
  });

  test("convert from an export and into one", async () => {
    const source = nbdUrl(urls["over.qcow2"] ?? ""), server = await startQemuNbd(folder, "-f", "qcow2", image("target.qcow2", "qcow2", "20M", "write -q -P 9 0 20M"));
    expect(await disk86("convert", "-O", "qcow2", source, at("converted.qcow2"))).toMatchObject({ status: 0, stderr: "" });
    expect(qemuImg("compare", at("converted.qcow2"), at("v.raw"))).toMatchObject({ status: 0 });
    expect(await disk86("convert", "-n", "-O", "raw", source, server.url)).toMatchObject({ status: 0, stderr: "" });
    await server.stop();
    expect(qemuImg("compare", at("target.qcow2"), at("v.raw"))).toMatchObject({ status: 0 });
  });

  test.each(["raw", "qcow2", "vdi"])("a new %s image is made on an export", async (format) => {
    const path = image(`anew-${format}.raw`, "raw", "24M", "write -q -P 9 0 24M"), server = await startQemuNbd(folder, "-f", "raw", path);
    servers.push(server);
    expect(await disk86("convert", "-O", format, at("v.qcow2"), server.url)).toMatchObject({ status: 0, stderr: "" });
    const resized = format === "raw" ? /Content mismatch at offset 20971520/ : /identical/;
    expect(qemuImg("compare", "-f", format, server.url, at("v.qcow2")).stdout).toMatch(resized);
    expect(await disk86("create", "-q", "-f", format, server.url, "4M")).toMatchObject({ status: 0, stderr: "" });
    expect(qemuImg("info", "-f", format, server.url).stdout).toContain(format === "raw" ? "virtual size: 24 MiB" : "virtual size: 4 MiB");
    runTool("qemu-io", ["-f", format, "-c", "read -q -P 0 0 4M", server.url]);
    expect(await disk86("convert", "-O", "raw", "-n", server.url, server.url)).toMatchObject({ status: 1, stderr: expect.stringContaining("is what is to be copied") });
    expect(await disk86("convert", "-O", "raw", server.url, server.url)).toMatchObject({ status: 1, stderr: expect.stringContaining("is what is to be copied") });
    expect(await disk86("create", "-q", "-f", "raw", server.url, "1G")).toMatchObject({ status: 1, stderr: expect.stringContaining("cannot grow") });
  });

  test("the library opens exports, and overlays stand on them", async () => {
    const server = await startQemuNbd(folder, "-f", "raw", image("library.qcow2", "qcow2", "4M", "write -q -P 6 0 64k"));
    servers.push(server);
    const disk = await openImage(server.url, { readOnly: false, format: "qcow2" }), into = new Uint8Array(65_536);
    await disk.write(4096, new Uint8Array(4096).fill(7));
    await disk.close();
    await createOverlay(at("library-top.qcow2"), server.url);
    const top = await openImage(at("library-top.qcow2"));
    await top.read(0, into);
    await top.close();
    expect([into[0], into[4096], into[8192]]).toEqual([6, 7, 6]);
    expect(qemuImg("info", at("library-top.qcow2")).stdout).toContain(`backing file: ${server.url}`);
  });

  test("an image of another machine names nothing of this one", async () => {
    const port = await freePort(), path = image("secret.raw", "raw", "1M");
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", at("reaching.qcow2")]);
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-u", "-b", nbdUrl(urls["v.raw"] ?? ""), "-F", "raw", at("reaching-nbd.qcow2"), "1M"]);
    for (const name of ["reaching.qcow2", "reaching-nbd.qcow2"]) {
      const server = spawn("qemu-nbd", ["-r", "-t", "-b", "127.0.0.1", "-p", String(port), "-f", "raw", at(name)], { stdio: "ignore" });
      await expect.poll(async () => (await disk86("info", `nbd://127.0.0.1:${port}`)).status).toBe(0);
      expect(await disk86("map", `nbd://127.0.0.1:${port}`)).toMatchObject({ status: 1, stderr: expect.stringMatching(/names the local (file|socket)/) });
      server.kill();
      await new Promise((resolve) => { server.once("exit", resolve); });
    }
  });

  test("a backing file may be an export", async () => {
    const url = nbdUrl(urls["v.raw"] ?? "");
    expect(await disk86("create", "-q", "-f", "qcow2", "-b", url, "-F", "raw", at("on-nbd.qcow2"))).toMatchObject({ status: 0, stderr: "" });
    await expectSameOutput("info", ["--backing-chain", at("on-nbd.qcow2")]);
    await expectSameOutput("map", ["--output=json", at("on-nbd.qcow2")]);
    expect(await disk86("compare", at("on-nbd.qcow2"), at("copy.raw"))).toMatchObject({ status: 0 });
  });

  test.each([
    ["nbd+unix:///x", /which Unix socket/], ["nbd+unix://host/x?socket=y", /on no host/], ["nbds://localhost", /TLS/], ["nbd:localhost", /no port/], ["nbd://localhost:1", /nobody listens/],
    ["nbd://localhost:99999", /is no port/], ["nbd://u@localhost", /user names/], ["nbd+unix:///?socket=/nothing", /no such socket/], ["nbd://a.invalid", /no such host|network|connect/], ["nbd+unix:///%?socket=x", /%25/], ["nbd://localhost?x=1", /unknown parameter/],
    ['json:{"driver":"nbd"}', /NBD server address missing/], ['json:{"driver":"nbd","host":"a","path":"b"}', /at the same time/], ['json:{"driver":"nbd","path":"b","tls-creds":"x"}', /TLS/],
  ])("%s is refused", async (name, why) => {
    const { status, stderr } = await disk86("info", name);
    expect(status).toBe(1);
    expect(stderr).toMatch(why);
  });
});
