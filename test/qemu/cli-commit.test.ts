import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildCli, startNode } from "../support/built-cli.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { inTurns } from "../support/turns.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "").map((word) => (word === "''" ? "" : word));

const COMMIT = [
  "top.qcow2", "-p top.qcow2", "-q top.qcow2", "-d top.qcow2", "-b base.qcow2 top.qcow2", "-b ./base.qcow2 top.qcow2", "-b mid.qcow2 top.qcow2", "-b gone top.qcow2", "-b top.qcow2 top.qcow2", "-d -b base.qcow2 top.qcow2", "-f qcow2 top.qcow2", "-f raw top.qcow2", "-f foo top.qcow2", "mid.qcow2",
  "base.qcow2", "base.raw", "gone", "", "top.qcow2 mid.qcow2", "-r x top.qcow2", "-r -1 top.qcow2", "-r 0 top.qcow2", "-r 100M top.qcow2", "-t foo top.qcow2", "-t none top.qcow2", "-x top.qcow2", "-b",
  "small.qcow2", "zeros.qcow2", "old.qcow2", "on-raw.qcow2", "grown-raw.qcow2", "other.qed", "other.qcow", "orphan.qcow2", "sub/over.qcow2", "packed.qcow2", "wide.qcow2", "snapshots.qcow2",
  "--image-opts driver=qcow2,file.filename=top.qcow2", "--image-opts driver=qcow2,file.filename=top.qcow2,backing.driver=qcow2,backing.file.filename=mid.qcow2", "-f qcow2 --image-opts file.filename=top.qcow2", 'json:{"driver":"qcow2","file.filename":"top.qcow2"}', "on-json.qcow2",
];
const REBASE = [
  "top.qcow2", "-b base.qcow2 -F qcow2 top.qcow2", "-p -b base.qcow2 -F qcow2 top.qcow2", "-q -b base.qcow2 -F qcow2 top.qcow2", "-b base.qcow2 top.qcow2", "-b base.qcow2 -F foo top.qcow2", "-b '' top.qcow2", "-b '' -F qcow2 top.qcow2", "-b mid.qcow2 -F qcow2 top.qcow2", "-b another.qcow2 -F qcow2 top.qcow2", "-b base.raw -F raw top.qcow2", 
  "-b long.raw -F raw top.qcow2", "-b gone -F qcow2 top.qcow2", "-b top.qcow2 -F qcow2 top.qcow2", "-b another.qcow2 -F qcow2 base.qcow2", "-b another.qcow2 -F qcow2 small.qcow2", "-b another.qcow2 -F qcow2 zeros.qcow2", "-b another.qcow2 -F qcow2 old.qcow2", "-b another.qcow2 -F qcow2 on-raw.qcow2", "-b another.qcow2 -F qcow2 wide.qcow2", "-b another.qcow2 -F qcow2 packed.qcow2", "-b '' packed.qcow2", "-b '' wide.qcow2", "-b '' old.qcow2", "-b '' on-raw.qcow2", "-b ../another.qcow2 -F qcow2 sub/over.qcow2", "-b another.qcow2 -F qcow2 sub/over.qcow2",
  "-b another.qcow2 -F qcow2 other.qed", "-b base.raw -F raw other.qed", "-b '' other.qed", "-b base.raw -F raw base.raw", "-b base.qcow2 -F qcow2 other.qcow", "-b base.qcow2 -F qcow2 orphan.qcow2", "-t foo -b base.qcow2 -F qcow2 top.qcow2", "-T foo -b base.qcow2 -F qcow2 top.qcow2", "-t none -T none -b base.qcow2 -F qcow2 top.qcow2", "", "-b base.qcow2", "-b base.qcow2 -F qcow2 top.qcow2 mid.qcow2", "-f qcow2 -b base.qcow2 -F qcow2 top.qcow2", "-f raw -b base.qcow2 -F qcow2 top.qcow2", "-x",
  "-u top.qcow2", "-u -b '' top.qcow2", "-u -b base.qcow2 -F qcow2 top.qcow2", "-u -b gone -F qcow2 top.qcow2", "-u -b gone top.qcow2", "-u -b gone -F foo top.qcow2", "-u -b base.qcow2 -F qcow2 orphan.qcow2", "-u -F qcow2 top.qcow2", "-u -b base.raw -F raw other.qed", "-u -b base.qcow2 -F qcow2 other.qed", "-u -b base.qcow2 other.qed", "-u other.qed", "-u -b base.qcow2 -F qcow2 other.qcow", "-u -b gone -F raw base.raw", `-u -b ${"long-".repeat(100)} -F qcow2 top.qcow2`, `-u -b ${"long-".repeat(210)} -F qcow2 top.qcow2`, "-u -b another.qcow2 -F qcow2 old.qcow2", "-u -b another.qcow2 -F qcow2 tiny.qcow2", `-u -b ${"long-".repeat(60)} -F qcow2 tiny.qcow2`, `-u -b ${"long-".repeat(95)} -F qcow2 tiny.qcow2`,
  "-u -b base.qcow2 -F qcow2 unnamed.qcow2", "-b another.qcow2 -F qcow2 unnamed.qcow2", "-U -b base.qcow2 -F qcow2 top.qcow2", "--image-opts -b base.qcow2 -F qcow2 driver=qcow2,file.filename=top.qcow2", 'x', '-b json:{"driver":"qcow2","file.filename":"base.qcow2"} -F qcow2 top.qcow2', "-b file:base.qcow2 -F qcow2 top.qcow2",
];
const IMAGES = ["top.qcow2", "mid.qcow2", "base.qcow2", "small.qcow2", "zeros.qcow2", "old.qcow2", "base.raw", "grown-raw.qcow2", "on-raw.qcow2", "other.qed", "other.qcow", "sub/over.qcow2", "packed.qcow2", "wide.qcow2", "tiny.qcow2", "unnamed.qcow2", "on-json.qcow2", "snapshots.qcow2"];

function makeImages(): void {
  mkdirSync("sub");
  const create = (file: string, options: string, size: string, backing?: string): void => { img("create", "-q", "-f", file.replace(/.*\./, ""), ...(options === "" ? [] : ["-o", options]), ...(backing === undefined ? [] : ["-b", backing, "-F", backing.endsWith(".raw") ? "raw" : "qcow2"]), file, ...(size === "" ? [] : [size])); };
  create("base.qcow2", "", "4M");
  io("-c", "write -P 1 0 64k", "-c", "write -P 2 1M 200k", "-c", "write -P 3 3M 256k", "base.qcow2");
  create("mid.qcow2", "", "5M", "base.qcow2");
  io("-c", "write -P 4 4500k 64k", "-c", "write -P 5 1100k 64k", "-c", "write -z 3M 64k", "mid.qcow2");
  create("top.qcow2", "", "6M", "mid.qcow2");
  io("-c", "write -P 6 5500k 10k", "-c", "write -P 7 100k 1k", "-c", "write -z 1M 64k", "-c", "write -z 2M 64k", "top.qcow2");
  create("another.qcow2", "cluster_size=4k", "3M");
  io("-c", "write -P 1 0 64k", "-c", "write -P 9 1050k 300k", "-c", "write -P 9 2M 64k", "another.qcow2");
  create("small.qcow2", "", "1M", "base.qcow2");
  io("-c", "write -P 8 500k 10k", "small.qcow2");
  create("zeros.qcow2", "", "4M", "base.qcow2");
  io("-c", "write -z 0 4M", "zeros.qcow2");
  create("old.qcow2", "compat=0.10,cluster_size=4k", "4M", "base.qcow2");
  io("-c", "write -P 8 30k 100k", "-c", "write -P 0 3M 64k", "old.qcow2");
  img("create", "-q", "-f", "raw", "base.raw", "4M");
  io("-f", "raw", "-c", "write -P 11 1M 1M", "base.raw");
  img("create", "-q", "-f", "raw", "long.raw", "9M");
  io("-f", "raw", "-c", "write -P 12 900k 200k", "-c", "write -P 12 5M 4M", "long.raw");
  create("on-raw.qcow2", "", "", "base.raw");
  io("-c", "write -P 12 1500k 1M", "-c", "write -z 1M 64k", "on-raw.qcow2");
  create("grown-raw.qcow2", "", "7M", "base.raw");
  io("-c", "write -P 12 6M 64k", "grown-raw.qcow2");
  for (const name of ["other.qed", "other.qcow"]) {
    create(name, "", "4M", "base.qcow2");
    io("-c", "write -P 13 1M 64k", name);
  }
  img("create", "-q", "-f", "qcow2", "-u", "-b", "gone.qcow2", "-F", "qcow2", "orphan.qcow2", "1M");
  create("sub/over.qcow2", "", "", "../base.qcow2");
  io("-c", "write -P 14 2M 64k", "sub/over.qcow2");
  create("packed.qcow2", "", "", "base.qcow2");
  io("-c", "write -c -P 9 768k 64k", "packed.qcow2");
  create("wide.qcow2", "cluster_size=2M", "", "base.qcow2");
  io("-c", "write -P 15 100k 10k", "wide.qcow2");
  create("tiny.qcow2", "cluster_size=512", "64k", "base.qcow2");
  img("create", "-q", "-f", "qcow2", "-u", "-o", "backing_file=base.qcow2,backing_fmt=qcow2", "unnamed.qcow2", "4M");
  runTool("python3", ["-c", "f=open('unnamed.qcow2','r+b');f.seek(112);d=f.read(400);i=d.index(bytes.fromhex('e2792aca'));f.seek(112+i);f.write(b'\\x12\\x34\\x56\\x78')"]);
  create("snapshots.qcow2", "", "", "base.qcow2");
  io("-c", "write -P 16 1M 64k", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", 'json:{"driver":"qcow2","file":{"driver":"file","filename":"base.qcow2"}}', "-F", "qcow2", "on-json.qcow2");
  io("-c", "write -P 17 1M 64k", "on-json.qcow2");
}

/** What a guest would read from each image that a command may have changed, and what its header says. All must be in order. */
function harvest(touched: (name: string) => boolean): string[] {
  return IMAGES.filter(touched).map((name) => {
    const format = name.replace(/.*\./, ""), read = tryTool("qemu-img", ["convert", "-f", format, "-O", "raw", name, "content"]);
    const { size, backing } = ((info: Record<string, unknown>) => ({ size: info["virtual-size"], backing: [info["backing-filename"], info["backing-filename-format"]] }))(JSON.parse(img("info", "-f", format, "--output=json", name)) as Record<string, unknown>);
    const check = tryTool("qemu-img", ["check", "-q", name]).status;
    const hash = read.status === 0 ? createHash("sha256").update(readFileSync("content")).digest("hex") : "unreadable";
    rmSync("content", { force: true });
    return `${name} ${hash} ${JSON.stringify([size, backing, check])}`;
  });
}

/** Fresh images, changed by `change`; answers what became of those that `line` can have changed. */
async function changed<T>(line: string, change: () => T | Promise<T>): Promise<{ result: T; files: string[] }> {
  process.chdir(folder);
  rmSync("work", { recursive: true, force: true });
  cpSync("images", "work", { recursive: true });
  process.chdir("work");
  const result = await change();
  return { result, files: result !== undefined ? harvest((name) => line.includes(name) || (line.startsWith("commit") && ["base.qcow2", "mid.qcow2", "base.raw"].includes(name))) : [] };
}

/** Percents between the first and the last depend on the pieces. */
const plain = (stdout: string): string => stdout.replace(/(\(0\.00\/100%\)\r)[^\n]*(\(100\.00\/100%\)\r)/, "$1$2");

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("commit and rebase, as qemu-img", () => {
  beforeAll(() => {
    mkdirSync(`${folder}/images`);
    process.chdir(`${folder}/images`);
    makeImages();
  }, 60_000);
  afterAll(() => process.chdir(home));

  // Each takes a moment.
  const lines = [...COMMIT.map((line) => `commit ${line}`), ...REBASE.map((line) => `rebase ${line}`)];
  test.each(inTurns(lines, 3, 1))("%s", async (line) => {
    const args = words(line), theirs = await changed(line, () => qemuImg(...args)), ours = await changed(line, () => disk86(...args));
    const said = ({ status, stdout, stderr }: typeof theirs.result) => ({ status, stdout: status === 0 ? plain(stdout) : "", complained: stderr !== "" });
    expect(said(ours.result), `${theirs.result.stderr}${ours.result.stderr}`).toEqual(said(theirs.result));
    expect(theirs.result.status === 0 ? ours.files : theirs.files).toEqual(theirs.files);
  });

  test("an emptied overlay takes no space, and is written on", async () => {
    await changed("top.qcow2", () => disk86("commit", "top.qcow2"));
    const [entry] = JSON.parse(img("map", "--output=json", "top.qcow2")) as { depth: number }[];
    expect(entry?.depth).not.toBe(0);
    io("-c", "write -P 77 1M 200k", "top.qcow2");
    img("check", "-q", "top.qcow2");
  });

  // QEMU 7.2 goes by the name alone, and what the guest sees changes.
  test("the same file read as another format is another backing file", async () => {
    await changed("top.qcow2", () => {
      img("convert", "-O", "raw", "top.qcow2", "wanted.raw");
      return disk86("rebase", "-b", "base.qcow2", "-F", "raw", "top.qcow2");
    });
    expect(qemuImg("compare", "top.qcow2", "wanted.raw").stdout).toBe("Images are identical.\n");
  });

  test("a VMDK fits its parent after a commit, too", async () => {
    img("create", "-q", "-f", "vmdk", "parent.vmdk", "2M");
    img("create", "-q", "-f", "vmdk", "-b", "parent.vmdk", "-F", "vmdk", "child.vmdk");
    io("-c", "write -P 4 64k 100k", "child.vmdk");
    expect(await disk86("commit", "child.vmdk")).toEqual({ status: 0, stdout: "Image committed.\n", stderr: "" });
    expect(await disk86("compare", "child.vmdk", "parent.vmdk")).toMatchObject({ status: 0 });
    expect(io("-r", "-c", "read -P 4 64k 100k", "-c", "read -P 0 1M 64k", "child.vmdk")).not.toContain("failed");
  });

  test("header extensions that nobody knows stay", async () => {
    await changed("unnamed.qcow2", () => disk86("rebase", "-u", "-b", "another.qcow2", "-F", "qcow2", "unnamed.qcow2"));
    expect(readFileSync("unnamed.qcow2").subarray(0, 1024).includes(Buffer.from("12345678", "hex"))).toBe(true);
  });
});

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("commit and rebase, as processes", () => {
  let cli = "";
  const at = `${folder}/long`;
  beforeAll(async () => {
    cli = await buildCli();
    mkdirSync(at);
    img("create", "-q", "-f", "raw", `${at}/base.raw`, "200M");
    img("create", "-q", "-f", "raw", `${at}/new.raw`, "200M");
    io("-f", "raw", "-c", "write -q -P 1 0 200M", `${at}/base.raw`);
  }, 60_000);

  test.each([["commit", "top.qcow2"], ["rebase", "-b", "new.raw", "-F", "raw", "top.qcow2"]])("a signal amid %s leaves both as they were to the guest", async (...args) => {
    rmSync(`${at}/top.qcow2`, { force: true });
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "base.raw", "-F", "raw", `${at}/top.qcow2`);
    if (args[0] === "commit") io("-c", "write -q -P 2 0 150M", `${at}/top.qcow2`);
    img("convert", "-O", "raw", `${at}/top.qcow2`, `${at}/wanted.raw`);
    const { child, done, said } = startNode(cli, ["-p", ...args].toSpliced(0, 2, args[0] ?? "", "-p"), at);
    await said("/100%)");
    child.kill("SIGINT");
    const { status } = await done;
    // Should it have been quicker than the signal, it is done.
    expect([0, 130]).toContain(status);
    img("check", "-q", `${at}/top.qcow2`);
    expect(qemuImg("compare", `${at}/top.qcow2`, `${at}/wanted.raw`).stdout).toBe("Images are identical.\n");
    expect(existsSync(`${at}/base.raw`)).toBe(true);
  });
});
