import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { buildCli, startNode } from "../support/built-cli.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { inTurns } from "../support/turns.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "").map((word) => (word === "''" ? "" : word));

const SMALL = ["none.raw", "odd.raw", "sparse.raw", "full.raw", "empty.qcow2", "q.qcow2", "old.qcow2", "zeros.qcow2", "tiny.qcow2", "top.qcow2", "grown.qcow2", "packed.qcow2", "packed-top.qcow2", "snapshots.qcow2", "metadata.qcow2", "extended.qcow2", "external.qcow2"];
const LARGE = ["big.raw", "big.qcow2", "big-top.qcow2"];
const TARGETS = ["-O raw", "-O qcow2", "-O qcow2 -o cluster_size=4k", "-O qcow2 -o compat=0.10,cluster_size=2M", "-O raw -S 64k", "-O qcow2 -S 512"];

/** `x` is what they make. */
const LINES: string[] = [
  "sparse.raw x", "sparse.raw", "", "x", "-O foo sparse.raw x", "-O qcow2 -o size=5M sparse.raw x", "-O raw -o cluster_size=4k sparse.raw x", "-O qcow2 -o cluster_size=3k sparse.raw x", "-O qcow2 -o foo=1 sparse.raw x",
  ...["metadata", "falloc", "full"].flatMap((mode) => [`-O qcow2 -o preallocation=${mode} sparse.raw x`, `-O qcow2 -o preallocation=${mode},extended_l2=on top.qcow2 x`, `-O raw -o preallocation=${mode} q.qcow2 x`, `-O qcow2 -o preallocation=${mode} -B q.qcow2 -F qcow2 top.qcow2 x`]),
  "-O qcow2 -o extended_l2=on top.qcow2 x", "-c -O qcow2 -o extended_l2=on top.qcow2 x", "-c -O qcow2 -o extended_l2=on,compression_type=zstd,cluster_size=16k odd.raw x", "-O qcow2 -o extended_l2=on -B q.qcow2 -F qcow2 top.qcow2 x", "-O qcow2 -o nocow=on,extended_l2=on,cluster_size=2M sparse.raw x",
  "-O qcow2 -o data_file=x-data top.qcow2 x", "-O qcow2 -o data_file=x-data,data_file_raw=on top.qcow2 x", "-O qcow2 -o data_file=x-data,extended_l2=on external.qcow2 x", "-O qcow2 -o data_file=x-data,preallocation=full sparse.raw x", "-O qcow2 -o data_file=x-data -B q.qcow2 -F qcow2 top.qcow2 x", "-c -O qcow2 -o data_file=x-data q.qcow2 x", "-S 0 -O qcow2 -o data_file=x-data,data_file_raw=on odd.raw x",
  "-O qcow2 -o preallocation=off sparse.raw x", "-O qcow2 -o lazy_refcounts=on,refcount_bits=8 q.qcow2 x", "-O qcow2 -o compression_type=zstd q.qcow2 x",
  "-O qcow sparse.raw x", "-O qcow odd.raw x", "-O qcow none.raw x", "-O qcow top.qcow2 x", "-O qcow -B q.qcow2 -F qcow2 top.qcow2 x", "-O qcow -B full.raw sparse.raw x", "-O qcow -o cluster_size=4k q.qcow2 x", "q.qcow x", "-O qcow2 over.qcow x", "-O qcow over.qcow x",
  ...["-O vpc", "-O vpc -o force_size=on", "-O vhdx", "-O vhdx -o block_size=1M", "-O raw", "-O qcow2"].flatMap((target) => ["odd.raw", "sparse.raw", "full.raw", "top.qcow2", "some.vhd", "-f vpc fixed.vhd", "some.vhdx"].map((image) => `${target} ${image} x`)),
  // Backing files
  "-O qcow2 -B q.qcow2 -F qcow2 top.qcow2 x", "-O qcow2 -o cluster_size=4k -B q.qcow2 -F qcow2 top.qcow2 x", "-O qcow2 -o cluster_size=1M -B q.qcow2 -F qcow2 top.qcow2 x", "-O qcow2 -B q.qcow2 -F qcow2 grown.qcow2 x",
  "-O qcow2 -B q.qcow2 -F qcow2 sparse.raw x", "-O qcow2 -B q.qcow2 -F qcow2 packed.qcow2 x", "-O qcow2 -B full.raw -F raw empty.qcow2 x", "-O qcow2 -B full.raw -F raw -o compat=0.10 sparse.raw x", "-O qcow2 -B q.qcow2 top.qcow2 x", "-O raw -B q.qcow2 -F qcow2 top.qcow2 x",
  "-O qcow2 -o backing_file=q.qcow2 top.qcow2 x", "-O qcow2 -o backing_file=q.qcow2,backing_fmt=qcow2 top.qcow2 x", "-O qcow2 -o backing_file=gone -B q.qcow2 -F qcow2 top.qcow2 x", "-O qcow2 -B q.qcow2 -F qcow2 q.qcow2 top.qcow2 x",
  "-O qcow2 -B gone -F qcow2 top.qcow2 x", "-O qcow2 -F qcow2 sparse.raw x", "-O qcow2 -B q.qcow2 -F qcow2 -S 0 top.qcow2 x",
  // Sparseness and speed
  "-S 0 sparse.raw x", "-S 0 -O qcow2 sparse.raw x", "-S 0 none.raw x", "-S 100 sparse.raw x", "-S 32M sparse.raw x", "-S 16M sparse.raw x", "-S 12k sparse.raw x", "-S foo sparse.raw x", "-S '' sparse.raw x", "-S -1 sparse.raw x", "-S 1k full.raw x",
  "-m 0 sparse.raw x", "-m 17 sparse.raw x", "-m zz sparse.raw x", "-m 4 sparse.raw x", "-W sparse.raw x", "-t foo sparse.raw x", "-t none sparse.raw x", "-T foo sparse.raw x", "-C sparse.raw x", "-S 4k -C sparse.raw x",
  // Compressed
  "-c -O qcow2 sparse.raw x", "-c -O qcow2 -o compression_type=zstd packed-top.qcow2 x", "-c -O qcow2 -o cluster_size=4k top.qcow2 x", "-c -O qcow2 -o cluster_size=2M,compat=0.10 q.qcow2 x", "-c -O qcow2 -o cluster_size=512,refcount_bits=1 full.raw x",
  "-c -O qcow2 odd.raw top.qcow2 none.raw full.raw x", "-c -S 0 -O qcow2 tiny.qcow2 x", "-c -S 64k -O qcow2 tiny.qcow2 x", "-c -m 16 -W -p -O qcow2 full.raw x", "-c -m 1 -O qcow2 full.raw x", "-c -O qcow2 -B q.qcow2 -F qcow2 top.qcow2 x", "-c -O qcow2 -o cluster_size=4k -B q.qcow2 -F qcow2 packed-top.qcow2 x", "-c -O qcow2 none.raw x",
  "-c sparse.raw x", "-c -O vdi sparse.raw x", "-c -n sparse.raw there.raw", "-c -O qcow2 -o preallocation=metadata sparse.raw x", "-c -O qcow2 -o preallocation=off sparse.raw x", "-c -C -O qcow2 sparse.raw x",
  // A snapshot
  "-l one snapshots.qcow2 x", "-l 1 -O qcow2 snapshots.qcow2 x", "-l snapshot.name=one -c -O qcow2 snapshots.qcow2 x", "-l snapshot.id=1,snapshot.name=one snapshots.qcow2 x", "-l snapshot.id=1,snapshot.name=two snapshots.qcow2 x", "-l two snapshots.qcow2 x", "-l '' snapshots.qcow2 x", "-l snapshot.foo=1 snapshots.qcow2 x", "-l one sparse.raw x", "-l one snapshots.qcow2 snapshots.qcow2 x",
  // What cannot be read
  "broken.qcow2 x", "--salvage broken.qcow2 x", "--salvage -q broken.qcow2 x", "--salvage -c -O qcow2 broken.qcow2 x", "--salvage -O qcow2 odd.raw broken.qcow2 x", "--salvage sparse.raw x", "--salvage -C sparse.raw x",
  // At a rate
  "-r 100M sparse.raw x", "-r 0 sparse.raw x", "-r foo sparse.raw x", "-r -1 sparse.raw x", "-r '' sparse.raw x",
  // Bitmaps
  "--bitmaps -O qcow2 marked.qcow2 x", "--bitmaps -c -O qcow2 -o cluster_size=4k marked.qcow2 x", "--bitmaps marked.qcow2 x", "--bitmaps -O qcow2 sparse.raw x", "--bitmaps -O qcow2 q.qcow2 x", "--bitmaps -O qcow2 marked.qcow2 q.qcow2 x", "--bitmaps -O qcow2 -o compat=0.10 marked.qcow2 x", "--skip-broken-bitmaps -O qcow2 marked.qcow2 x", "--bitmaps --skip-broken-bitmaps -O qcow2 marked.qcow2 x", "-O qcow2 marked.qcow2 x",
  "--bitmaps -O qcow2 torn.qcow2 x", "--bitmaps --skip-broken-bitmaps -O qcow2 torn.qcow2 x",
  // Into what is there
  "-n sparse.raw x", "-n -O qcow2 -o cluster_size=4k sparse.raw x", "--target-is-zero sparse.raw x", "-n sparse.raw there.raw", "-n full.raw short.raw", "-n -O qcow2 sparse.raw there.qcow2", "-n -O qcow2 top.qcow2 there.qcow2", "-n -O qcow2 empty.qcow2 there.qcow2",
  "-n -O qcow2 -S 0 sparse.raw there.qcow2", "-n -O qcow2 top.qcow2 over.qcow2", "-n -O qcow2 -B q.qcow2 -F qcow2 top.qcow2 over.qcow2", "-n --target-is-zero sparse.raw blank.raw", "-n -O foo sparse.raw there.raw", "-n -O qcow2 sparse.raw there.raw", "sparse.raw there.raw", "-O qcow2 q.qcow2 there.qcow2",
  // Several
  "sparse.raw odd.raw x", "odd.raw sparse.raw q.qcow2 x", "-O qcow2 odd.raw top.qcow2 none.raw full.raw x", "-f raw sparse.raw q.qcow2 x", "sparse.raw gone x",
  // Arguments
  "-p sparse.raw x", "-p -q sparse.raw x", "-q sparse.raw x", "-p none.raw x", "gone x", "sparse.raw nowhere/x", "sparse.raw sub", "sparse.raw sparse.raw", "-U sparse.raw x", "-f qcow2 sparse.raw x", "-f foo sparse.raw x", "-f raw q.qcow2 x", "-Oqcow2 q.qcow2 x", "q.qcow2 x -O qcow2", "-z", "-O", "-O qcow2 -b q.qcow2 top.qcow2 x",
];
const VMDK_TARGETS = ["", "-S 0", "-o zeroed_grain=on", "-o subformat=monolithicFlat", "-o subformat=twoGbMaxExtentSparse", "-o subformat=twoGbMaxExtentFlat", "-o subformat=streamOptimized", "-S 0 -o subformat=streamOptimized", "-c", "-c -o subformat=streamOptimized", "-c -o subformat=twoGbMaxExtentFlat"].map((options) => `-O vmdk ${options}`);
LINES.push(
  ...VMDK_TARGETS.flatMap((target) => ["odd.raw", "sparse.raw", "full.raw", "top.qcow2", "split.vmdk", "stream.vmdk"].map((image) => `${target} ${image} x`)),
  ...["-O raw", "-O qcow2"].flatMap((target) => ["some.vmdk", "flat.vmdk", "split.vmdk", "stream.vmdk", "over.vmdk"].map((image) => `${target} ${image} x`)),
  "-O vmdk -B some.vmdk -F vmdk over.vmdk x", "-O vmdk -o zeroed_grain=on -B some.vmdk -F vmdk over.vmdk x", "-O vmdk -B q.qcow2 -F qcow2 top.qcow2 x", "-O vmdk -o subformat=monolithicFlat -B some.vmdk -F vmdk over.vmdk x",
  "-n -O vmdk sparse.raw there.vmdk", "-n -O vmdk top.qcow2 there.vmdk", "-O vmdk sparse.raw there.vmdk", "-O vmdk -o subformat=foo sparse.raw x", "-O vmdk sparse.raw odd.raw x",
);
const MADE = ["x", "there.raw", "short.raw", "there.qcow2", "over.qcow2", "blank.raw", "there.vmdk"];

function makeImages(): void {
  mkdirSync("sub");
  writeFileSync("none.raw", "");
  writeFileSync("odd.raw", Buffer.alloc(1300, "x"));
  img("create", "-q", "sparse.raw", "10M");
  io("-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "-c", "write -P 0 6M 200k", "-c", "write -P 3 6400k 512", "-c", "write -P 4 7M 3M", "sparse.raw");
  writeFileSync("full.raw", Buffer.from(Uint32Array.from({ length: 3 << 18 }, (_, i) => Math.imul(i, 2654435761)).buffer));
  img("create", "-q", "-f", "qcow2", "empty.qcow2", "10M");
  img("create", "-q", "-f", "qcow2", "q.qcow2", "10M");
  io("-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "-c", "write -z 6M 1M", "-c", "write -P 3 10485000 1", "q.qcow2");
  img("convert", "-O", "qcow2", "-o", "compat=0.10", "q.qcow2", "old.qcow2");
  img("convert", "-O", "qcow2", "-o", "cluster_size=512", "q.qcow2", "tiny.qcow2");
  img("create", "-q", "-f", "qcow2", "zeros.qcow2", "10M");
  io("-c", "write -z 0 10M", "-c", "write -P 0 3M 64k", "zeros.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", "top.qcow2");
  io("-c", "write -P 4 7M 1M", "-c", "write -z 5M 64k", "-c", "write -P 5 1100k 1k", "top.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", "grown.qcow2", "15M");
  io("-c", "write -P 4 12M 100k", "grown.qcow2");
  img("convert", "-c", "-O", "qcow2", "top.qcow2", "packed.qcow2");
  copyFileSync("top.qcow2", "packed-top.qcow2");
  io("-c", "write -c -P 9 768k 64k", "packed-top.qcow2");
  copyFileSync("q.qcow2", "marked.qcow2");
  img("bitmap", "--add", "-g", "64k", "marked.qcow2", "first");
  io("-c", "write -P 9 3M 100k", "marked.qcow2");
  img("bitmap", "--add", "--disable", "marked.qcow2", "second");
  tearBitmap("marked.qcow2", "torn.qcow2");
  breakPacked("packed.qcow2", "broken.qcow2");
  copyFileSync("q.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
  io("-c", "write -P 7 0 128k", "snapshots.qcow2");
  img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "metadata.qcow2", "10M");
  img("convert", "-O", "qcow", "q.qcow2", "q.qcow");
  io("-c", "write -c -P 4 1032k 4k", "q.qcow");
  img("create", "-q", "-f", "qcow", "-b", "q.qcow2", "-F", "qcow2", "over.qcow");
  io("-c", "write -P 4 7M 100k", "-c", "write -P 5 1100k 1k", "over.qcow");
  img("convert", "-O", "vpc", "q.qcow2", "some.vhd");
  img("convert", "-O", "vmdk", "q.qcow2", "some.vmdk");
  img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "top.qcow2", "stream.vmdk");
  img("convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", "sparse.raw", "flat.vmdk");
  img("convert", "-O", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "q.qcow2", "split.vmdk");
  img("create", "-q", "-f", "vmdk", "-b", "some.vmdk", "-F", "vmdk", "over.vmdk", "12M");
  io("-c", "write -P 4 7M 100k", "-c", "write -P 5 1100k 1k", "over.vmdk");
  img("convert", "-O", "vpc", "-o", "subformat=fixed,force_size=on", "q.qcow2", "fixed.vhd");
  img("convert", "-O", "qcow2", "-o", "extended_l2=on", "top.qcow2", "extended.qcow2");
  io("-c", "write -P 6 2M 700", "-c", "write -z 7M 2k", "-c", "write -c -P 6 9M 64k", "extended.qcow2");
  img("convert", "-O", "qcow2", "-o", "data_file=external.data", "top.qcow2", "external.qcow2");
  img("convert", "-O", "vhdx", "q.qcow2", "some.vhdx");
  img("create", "-q", "big.raw", "5G");
  io("-f", "raw", "-c", "write -P 9 4900M 3M", "-c", "write -P 8 0 1M", "big.raw");
  img("convert", "-O", "qcow2", "big.raw", "big.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "big.qcow2", "-F", "qcow2", "big-top.qcow2", "6G");
  io("-c", "write -P 7 5500M 1M", "big-top.qcow2");
}

/** A copy whose first bitmap was in use when its writer ended. */
function tearBitmap(image: string, to: string): void {
  const bytes = readFileSync(image), extension = bytes.indexOf(Buffer.from("23852875", "hex"), 72), directory = Number(bytes.readBigUInt64BE(extension + 24));
  bytes.writeUInt32BE(bytes.readUInt32BE(directory + 12) | 1, directory + 12);
  writeFileSync(to, bytes);
}

/** A copy whose first compressed cluster is damaged. */
function breakPacked(image: string, to: string): void {
  const bytes = readFileSync(image), l1 = Number(bytes.readBigUInt64BE(40)), l2 = Number(bytes.readBigUInt64BE(l1) & 0x00ff_ffff_ffff_fe00n);
  for (let at = l2; ; at += 8) {
    const entry = bytes.readBigUInt64BE(at);
    if ((entry & (1n << 62n)) === 0n) continue;
    bytes.fill(0xff, Number(entry & 0x003f_ffff_ffff_ffffn), Number(entry & 0x003f_ffff_ffff_ffffn) + 30);
    return writeFileSync(to, bytes);
  }
}

/** What `-n` writes into, all full of old data but the last. */
function makeThere(): void {
  img("create", "-q", "there.raw", "12M");
  io("-f", "raw", "-c", "write -P 200 0 12M", "there.raw");
  img("create", "-q", "short.raw", "2M");
  img("create", "-q", "-f", "qcow2", "there.qcow2", "12M");
  io("-c", "write -P 201 0 12M", "there.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", "over.qcow2");
  img("create", "-q", "blank.raw", "10M");
  img("create", "-q", "-f", "vmdk", "there.vmdk", "12M");
  io("-c", "write -P 201 0 12M", "there.vmdk");
}

/** By magic: what convert makes. */
function formatOf(file: string): "raw" | "qcow" | "qcow2" | "vpc" | "vmdk" | "vhdx" {
  const head = readFileSync(file).subarray(0, 8);
  if (/^(KDMV|# Disk D)/.test(head.toString("latin1"))) return "vmdk";
  if (head.toString("latin1") === "conectix") return "vpc";
  if (head.toString("latin1") === "vhdxfile") return "vhdx";
  if (head.subarray(0, 4).toString("latin1") !== "QFI\xfb") return "raw";
  return head.readUInt32BE(4) === 1 ? "qcow" : "qcow2";
}

/** What a guest would read from each file that there is, and what its header says. A qcow2 file must be in order. They are removed. */
function harvest(): string[] {
  return MADE.filter((name) => existsSync(name)).map((name) => {
    const format = formatOf(name), info = JSON.parse(img("info", "-f", format, "--output=json", name)) as Record<string, unknown>;
    if (format === "qcow2" || format === "vmdk") img("check", "-q", "-f", format, name);
    img("convert", "-f", format, "-O", "raw", name, "content");
    const hash = runTool("sha256sum", ["content"]).slice(0, 64);
    for (const used of ["content", name, ...readdirSync(".").filter((one) => one.startsWith("x-"))]) rmSync(used);
    // A VMDK's content ID is random.
    return `${name} ${hash} ${JSON.stringify({ ...info, "actual-size": 0 }).replace(/"cid":\d+/, "")}`;
  });
}

/** Percents between the first and the last depend on the pieces. */
const plain = (stdout: string): string => stdout.replace(/(\(0\.00\/100%\)\r)[^\n]*(\(100\.00\/100%\)\r)/, "$1$2");

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("convert, as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  }, 60_000);
  afterAll(() => process.chdir(home));

  describe.each(TARGETS)("%s", (target) => {
    test.each(inTurns(SMALL, 2, TARGETS.indexOf(target)))("of %s", async (image) => {
      const args = ["convert", ...words(target), image, "x"];
      const wanted = qemuImg(...args), allocated = statSync("x").blocks * 512, wantedFiles = harvest();
      expect(await disk86(...args)).toEqual(wanted);
      // Zeros take no space: at most a block more for each of few ranges.
      expect(statSync("x").blocks * 512).toBeLessThanOrEqual(allocated + (target.includes("2M") ? 4 << 20 : 512 << 10));
      expect(harvest()).toEqual(wantedFiles);
    });
  });

  test.each(LARGE)("over 4 GiB: %s", async (image) => {
    for (const format of ["raw", "qcow2", "vpc", "vmdk", "vhdx"]) {
      expect(await disk86("convert", "-O", format, image, "x")).toEqual({ status: 0, stdout: "", stderr: "" });
      // A VHD is somewhat larger.
      expect(qemuImg("compare", "-F", format, image, "x").stdout).toMatch(/^(Warning: Image size mismatch!\n)?Images are identical\.\n$/);
      if (format === "qcow2") img("check", "-q", "x");
      expect(statSync("x").blocks * 512).toBeLessThan(12 << 20);
      rmSync("x");
    }
  });

  test.each(LINES)("%s", async (line) => {
    const args = ["convert", ...words(line)];
    const existing = MADE.slice(1).some((name) => line.includes(name));
    if (existing) makeThere();
    const wanted = qemuImg(...args), wantedFiles = wanted.status === 0 ? harvest() : [];
    // What qemu-img leaves behind after a failure is its own.
    for (const name of [...MADE, ...readdirSync(".").filter((one) => one.startsWith("x-"))]) rmSync(name, { force: true });
    if (existing) makeThere();
    const ours = await disk86(...args), files = harvest();
    // What was printed before a failure is no promise.
    const said = { status: wanted.status, stderr: wanted.stderr !== "", stdout: wanted.status === 0 ? plain(wanted.stdout) : "" };
    expect({ status: ours.status, stderr: ours.stderr !== "", stdout: ours.status === 0 ? plain(ours.stdout) : "" }).toEqual(said);
    expect(wanted.status === 0 ? files : files.filter((one) => one.startsWith("x "))).toEqual(wantedFiles);
    expect(readdirSync(".").filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  test.each(["sparse.raw", "q.qcow2"])("even without locks it does not write over %s, which it reads", async (file) => {
    const before = readFileSync(file);
    expect(await disk86("convert", "-U", file === "q.qcow2" ? "top.qcow2" : file, file)).toMatchObject({ status: 1 });
    expect(await disk86("convert", "-U", "-n", file, file)).toMatchObject({ status: 1 });
    expect(readFileSync(file).equals(before)).toBe(true);
  });

  test("--salvage tells what it could not read, -q does not", async () => {
    const { stderr } = await disk86("convert", "--salvage", "broken.qcow2", "x");
    expect(stderr).toMatch(/^disk86: warning: error while reading offset \d+: .*compressed data/);
    expect((await disk86("convert", "-q", "--salvage", "broken.qcow2", "x")).stderr).toBe("");
    rmSync("x");
  });

  test("-r takes its time, and a signal is heard meanwhile", async () => {
    const began = performance.now();
    expect(await disk86("convert", "-r", "4M", "-S", "0", "full.raw", "x")).toMatchObject({ status: 0 });
    expect(performance.now() - began).toBeGreaterThan(700);
    rmSync("x");
  });

  test("-c makes as small an image as qemu-img", async () => {
    for (const type of ["zlib", "zstd"]) {
      const args = ["convert", "-c", "-O", "qcow2", "-o", `compression_type=${type}`, "top.qcow2", "x"];
      qemuImg(...args);
      const wanted = statSync("x").size;
      rmSync("x");
      expect((await disk86(...args)).status).toBe(0);
      expect(statSync("x").size).toBeLessThanOrEqual(wanted * 1.05 + 65536);
      rmSync("x");
    }
  });

  test("-o help lists the options", async () => {
    const { status, stdout } = await disk86("convert", "-O", "qcow2", "-o", "help");
    const wanted = qemuImg("convert", "-O", "qcow2", "-o", "help").stdout.split("\n");
    expect(status).toBe(0);
    for (const line of stdout.trimEnd().split("\n")) expect(wanted).toContain(line);
  });
});

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("convert, as a process", () => {
  const MIB = 256;
  let cli = "";
  beforeAll(async () => {
    cli = await buildCli();
    const piece = Buffer.from(Uint32Array.from({ length: 1 << 18 }, (_, i) => Math.imul(i, 2654435761)).buffer);
    writeFileSync(`${folder}/large.raw`, Buffer.concat(Array.from({ length: MIB }, () => piece)));
    runTool("qemu-img", ["convert", "-O", "qcow2", `${folder}/large.raw`, `${folder}/large.qcow2`]);
  }, 60_000);

  test("a signal leaves nothing behind", async () => {
    const { child, done } = startNode(cli, ["convert", "-O", "qcow2", "-o", "cluster_size=4k", "large.raw", "stopped.qcow2"], folder);
    const waiting = setInterval(() => { if (readdirSync(folder).some((name) => name.includes("stopped"))) child.kill("SIGINT"); }, 5);
    await done;
    clearInterval(waiting);
    expect(readdirSync(folder).filter((name) => name.includes("stopped"))).toEqual([]);
  });

  test.each([["large.raw", "qcow2"], ["large.qcow2", "raw"]])("time for %s to %s", async (from, to) => {
    const ours: number[] = [], theirs: number[] = [];
    for (let i = 0; i < 3; i++) {
      let began = performance.now();
      runTool("qemu-img", ["convert", "-O", to, `${folder}/${from}`, `${folder}/theirs`]);
      theirs.push(performance.now() - began);
      began = performance.now();
      const { status } = await startNode(cli, ["convert", "-O", to, from, "ours"], folder).done;
      ours.push(performance.now() - began);
      expect(status).toBe(0);
      expect(qemuImg("compare", `${folder}/ours`, `${folder}/theirs`).status).toBe(0);
      for (const name of ["ours", "theirs"]) rmSync(`${folder}/${name}`);
    }
    const middle = (times: number[]): string => (times.toSorted((a, b) => a - b)[1] ?? 0).toFixed(0);
    console.log(`convert of ${MIB} MiB, ${from} to ${to}: disk86 ${middle(ours)} ms, qemu-img ${middle(theirs)} ms`);
  }, 60_000);
});
