import { spawnSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { buildCli, startNode, type Started } from "../support/built-cli.ts";
import { anyRange } from "../support/model.ts";
import { nbdUrl, socketPath, startQemuNbd } from "../support/nbd.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const MIB = 2 ** 20, SIZE = 24 * MIB;
const folder = tempFolder();
const at = (name: string): string => join(folder, name);
let cli = "";

interface Served extends Started { readonly url: string; readonly socket: string; stop(): Promise<number | null> }

/** `disk86 serve` on a Unix socket of its own. */
async function serve(...args: string[]): Promise<Served> {
  const socket = socketPath(folder), started = startNode(cli, ["serve", "-k", socket, ...args], folder);
  await started.said("serving");
  const stop = async (): Promise<number | null> => {
    started.child.kill("SIGTERM");
    return (await started.done).status;
  };
  return { ...started, url: nbdUrl(socket), socket, stop };
}

function create(name: string, format: string, ...options: string[]): string {
  runTool("qemu-img", ["create", "-q", "-f", format, ...options, at(name), String(SIZE)]);
  return at(name);
}

function io(target: readonly string[], ...commands: string[]): void {
  runTool("qemu-io", ["-d", "unmap", ...commands.flatMap((command) => ["-c", command]), ...target]);
}

const SOME = ["write -q -P 7 1M 3M", "write -q -P 9 10M 100k", "write -q -z 2M 64k", `write -q -P 3 ${SIZE - 4096} 4096`];

const info = (url: string): unknown => {
  const { exports: [first] } = JSON.parse(runTool("nbdinfo", ["--json", url])) as { exports: Record<string, unknown>[] };
  return { ...first, contexts: (first?.["contexts"] as string[] | undefined)?.toSorted(), uri: "", can_fast_zero: false, block_size_minimum: 1, block_size_preferred: 0 };
};

describe.skipIf(!requireTool("qemu-img", "qemu-io", "qemu-nbd", "nbdinfo", "nbdcopy", "fio"))("disk86 serve", () => {
  beforeAll(async () => { cli = await buildCli(); });

  describe.each([["raw", []], ["qcow2", []], ["qcow2", ["-o", "cluster_size=512"]], ["qcow2", ["-o", "preallocation=metadata"]], ["vdi", []], ["qed", []]] as const)("%s %j", (format, options) => {
    test("tells the same as qemu-nbd, and has the same map", async () => {
      const path = create(`same.${format}`, format, ...options);
      io(["-f", format, path], ...SOME);
      for (const mode of [["-r"], []]) {
        const theirs = await startQemuNbd(folder, "-f", format, ...mode, path);
        const wanted = [info(theirs.url), runTool("nbdinfo", ["--map", theirs.url])];
        await theirs.stop();
        const ours = await serve("-t", "-e", "8", "-f", format, ...mode, path);
        expect([info(ours.url), runTool("nbdinfo", ["--map", ours.url])]).toEqual(wanted);
        expect(await ours.stop()).toBe(0);
      }
    });

    seeded("changes by qemu-io arrive", async (random) => {
      const path = create(`io.${format}`, format, ...options), model = create("io.model", "raw");
      const ours = await serve("-t", "-f", format, path), commands = scribble(random, 60);
      io(["-f", "raw", ours.url], ...commands);
      io(["-f", "raw", model], ...commands);
      expect(tryTool("qemu-img", ["compare", "-f", "raw", "-F", "raw", ours.url, model])).toMatchObject({ status: 0 });
      expect(await ours.stop()).toBe(0);
      expect(tryTool("qemu-img", ["compare", "-f", format, "-F", "raw", path, model])).toMatchObject({ status: 0 });
      if (format !== "raw") expect(tryTool("qemu-img", ["check", "-f", format, path])).toMatchObject({ status: 0 });
    });
  });

  test("nbdcopy out and in", async () => {
    const path = create("copy.qcow2", "qcow2"), into = create("into.qcow2", "qcow2");
    io(["-f", "qcow2", path], ...SOME);
    const from = await serve("-r", "-e", "0", "-t", path), to = await serve("-e", "0", "-t", "-f", "qcow2", into);
    runTool("nbdcopy", [from.url, at("copy.raw")]);
    runTool("nbdcopy", [from.url, to.url]);
    expect([await from.stop(), await to.stop()]).toEqual([0, 0]);
    for (const copy of [at("copy.raw"), into]) expect(tryTool("qemu-img", ["compare", path, copy])).toMatchObject({ status: 0 });
    expect(tryTool("qemu-img", ["check", into])).toMatchObject({ status: 0 });
  });

  test("fio writes, reads back and finds what it wrote", async () => {
    const ours = await serve("-t", "-e", "0", "-f", "qcow2", create("fio.qcow2", "qcow2"));
    const common = ["--name=verify", "--ioengine=nbd", `--uri=${ours.url}`, "--bsrange=512-256k", "--bs_unaligned=1", "--iodepth=16", `--size=${SIZE}`, "--verify=crc32c", "--verify_fatal=1", "--output-format=terse", `--aux-path=${folder}`];
    runTool("fio", [...common, "--rw=randrw", "--fsync=20", "--norandommap=0"]);
    expect(await ours.stop()).toBe(0);
    expect(tryTool("qemu-img", ["check", at("fio.qcow2")])).toMatchObject({ status: 0 });
  });

  test("it ends with the last client, or when it is told to", async () => {
    const path = create("ends.qcow2", "qcow2"), socket = socketPath(folder);
    const once = startNode(cli, ["serve", "-k", socket, path], folder);
    await once.said("until the last client has left");
    expect(runTool("nbdinfo", ["--size", nbdUrl(socket)])).toBe(`${SIZE}\n`);
    expect(await once.done).toMatchObject({ status: 0, stderr: "" });
    expect(existsSync(socket)).toBe(false);
    const stays = await serve("-t", "--pid-file", at("pid"), path);
    expect(readFileSync(at("pid"), "utf8")).toBe(`${stays.child.pid}\n`);
    for (let i = 0; i < 2; i++) expect(runTool("nbdinfo", ["--size", stays.url])).toBe(`${SIZE}\n`);
    expect(await stays.stop()).toBe(0);
    expect([existsSync(at("pid")), existsSync(stays.socket)]).toEqual([false, false]);
  });

  test("a socket left behind is replaced, one in use and a file are not", async () => {
    const path = create("socket.qcow2", "qcow2"), first = await serve("-t", "-r", path);
    const tryAt = (socket: string) => spawnSync(process.execPath, [cli, "serve", "-r", "-k", socket, path], { encoding: "utf8" });
    expect(tryAt(first.socket)).toMatchObject({ status: 1, stderr: expect.stringContaining("in use already") });
    first.child.kill("SIGKILL");
    await first.done;
    expect(existsSync(first.socket)).toBe(true);
    const second = startNode(cli, ["serve", "-r", "-k", first.socket, path], folder);
    await second.said("serving");
    expect(runTool("nbdinfo", ["--size", first.url])).toBe(`${SIZE}\n`);
    expect((await second.done).status).toBe(0);
    writeFileSync(at("plain"), "mine");
    expect(tryAt(at("plain"))).toMatchObject({ status: 1, stderr: expect.stringContaining("is no socket") });
    expect(readFileSync(at("plain"), "utf8")).toBe("mine");
  });

  test("names, descriptions, ports, offsets", async () => {
    const path = create("named.qcow2", "qcow2"), server = startNode(cli, ["serve", "-t", "-e", "2", "-p", "0", "-x", "my disk/1", "-D", "a description", "-o", "4M", path], folder);
    const base = /nbd:\/\/127\.0\.0\.1:\d+/.exec(await server.said("serving"))?.[0] ?? "";
    expect(runTool("nbdinfo", ["--list", base])).toMatch(/export="my disk\/1":\n\tdescription: a description\n\texport-size: 20971520/);
    io(["-f", "raw", `${base}/my%20disk%2F1`], "write -q -P 5 1M 64k");
    expect(tryTool("nbdinfo", [`${base}/other`])).toMatchObject({ status: 1, stderr: expect.stringContaining("No such file or directory for export: other") });
    server.child.kill("SIGINT");
    expect((await server.done).status).toBe(0);
    io(["-f", "qcow2", path], "read -q -P 5 5M 64k", "read -q -P 0 0 5M");
  });

  test("read-only: asked for, of an internal snapshot; temporary changes", async () => {
    const path = create("modes.qcow2", "qcow2");
    io(["-f", "qcow2", path], "write -q -P 1 0 64k");
    runTool("qemu-img", ["snapshot", "-c", "before", path]);
    io(["-f", "qcow2", path], "write -q -P 2 0 64k");
    const before = readFileSync(path);
    const write = (url: string) => tryTool("qemu-io", ["-f", "raw", "-c", "write -P 9 0 64k", "-c", "read -P 9 0 64k", url]);
    for (const [args, byte, status] of [[["-r"], 2, 1], [["-l", "before"], 1, 1], [["-s"], 9, 0]] as const) {
      const server = await serve("-t", "-f", "qcow2", ...args, path);
      expect(write(server.url).status).toBe(status);
      io(["-f", "raw", "-r", server.url], `read -q -P ${byte} 0 64k`);
      await server.stop();
    }
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test("more clients than -e says wait for their turn", async () => {
    const server = await serve("-t", "-e", "1", create("turns.qcow2", "qcow2"));
    const first = await connected(server.socket), second = await connected(server.socket);
    const greetings = { first: 0, second: 0 };
    first.on("data", () => { greetings.first++; });
    second.on("data", () => { greetings.second++; });
    await new Promise((resolve) => { setTimeout(resolve, 300); });
    expect(greetings).toEqual({ first: 1, second: 0 });
    first.destroy();
    await expect.poll(() => greetings.second).toBe(1);
    second.destroy();
    expect(await server.stop()).toBe(0);
  });

  test("allocation depth and dirty bitmaps, as qemu-nbd", async () => {
    const base = create("depth-base.qcow2", "qcow2"), top = at("depth-top.qcow2");
    io(["-f", "qcow2", base], "write -q -P 1 0 2M");
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", top]);
    for (const name of ["one", "two"]) runTool("qemu-img", ["bitmap", "--add", "-g", "64k", top, name]);
    io(["-f", "qcow2", top], "write -q -P 2 1M 100k", "write -q -P 3 9M 1M");
    runTool("qemu-img", ["bitmap", "--clear", top, "two"]);
    io(["-f", "qcow2", top], "write -q -P 3 20M 12k");
    const args = ["-A", "-B", "one", "-B", "two", "-r", "-f", "qcow2", top], contexts = ["base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two"];
    const maps = (url: string): string[] => contexts.map((context) => runTool("nbdinfo", [`--map=${context}`, url]));
    const theirs = await startQemuNbd(folder, ...args), wanted = [info(theirs.url), maps(theirs.url)];
    await theirs.stop();
    const ours = await serve("-t", "-e", "8", ...args);
    expect([info(ours.url), maps(ours.url)]).toEqual(wanted);
    expect(await ours.stop()).toBe(0);
    const { status, stderr } = spawnSync(process.execPath, [cli, "serve", "-r", "-B", "three", top], { encoding: "utf8" });
    expect({ status, stderr }).toEqual({ status: 1, stderr: "disk86: Bitmap 'three' is not found\n" });
  });

  test("a client may bring the socket", () => {
    const path = create("activated.qcow2", "qcow2");
    expect(runTool("nbdinfo", ["--size", "--", "[", process.execPath, cli, "serve", "-r", path, "]"])).toContain(String(SIZE));
  });

  test.each([
    [["--tls-creds", "x"], /no TLS/], [["-c", "/dev/nbd0"], /nbd-client/], [["--fork"], /background/], [["-p", "70000"], /Invalid port/], [["-e", "many"], /Invalid shared/],
    [["--cache=fast"], /Invalid cache mode/], [["-o", "1T"], /behind the end/], [["-k", "x", "-p", "1"], /neither port nor address/], [["-b", "203.0.113.1"], /not an address of this machine/], [["-l", "none"], /none/],
  ])("%j is refused", (args, why) => {
    create("refused.qcow2", "qcow2");
    const { status, stderr } = spawnSync(process.execPath, [cli, "serve", ...args, at("refused.qcow2")], { encoding: "utf8", timeout: 20_000 });
    expect(status).toBe(1);
    expect(stderr).toMatch(why);
  });

  test("a port that is taken is named", async () => {
    create("taken.qcow2", "qcow2");
    const other = createServer();
    await new Promise<void>((resolve) => { other.listen(0, "127.0.0.1", resolve); });
    const address = other.address(), port = typeof address === "object" ? String(address?.port) : "";
    const { done } = startNode(cli, ["serve", "-p", port, at("taken.qcow2")], folder);
    expect(await done).toMatchObject({ status: 1, stderr: expect.stringContaining(`127.0.0.1:${port}: in use already`) });
    other.close();
  });
});

function connected(socket: string): Promise<Socket> {
  return new Promise((resolve) => { const client = connect(socket, () => { resolve(client); }); });
}

function scribble(random: Random, count: number): string[] {
  return Array.from({ length: count }, () => {
    const { offset, length } = anyRange(random, SIZE, MIB), kind = random.int(10);
    if (kind < 6) return `write -q -P ${1 + random.int(254)} ${offset} ${length}`;
    if (kind < 7) return `write -q -f -P ${1 + random.int(254)} ${offset} ${length}`;
    return kind < 8 ? `write -q -z ${offset} ${length}` : kind < 9 ? `write -q -z -u ${offset} ${length}` : "flush";
  });
}
