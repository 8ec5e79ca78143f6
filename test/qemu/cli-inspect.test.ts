import { closeSync, copyFileSync, mkdirSync, openSync, symlinkSync, truncateSync, writeFileSync, writeSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);

/** Writes `bytes` at `offset` of a file. */
function patch(file: string, offset: number, bytes: readonly number[]): void {
  const fd = openSync(file, "r+");
  writeSync(fd, Uint8Array.from(bytes), 0, bytes.length, offset);
  closeSync(fd);
}

function makeImages(): void {
  img("create", "-q", "-f", "qcow2", "empty.qcow2", "1G");
  img("create", "-q", "-f", "qcow2", "-o", "compat=0.10,cluster_size=4k", "old.qcow2", "100k");
  img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on,compression_type=zstd,lazy_refcounts=on,refcount_bits=1", "new.qcow2", "10M");
  img("create", "-q", "-f", "qcow2", "base.qcow2", "10M");
  io("-c", "write -P 1 0 1M", "-c", "write -z 1M 1M", "-c", "write -P 2 3M 64k", "base.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2", "20M");
  io("-c", "write -P 3 512k 64k", "-c", "write -z 3M 64k", "-c", "write -P 4 8M 128k", "-c", "write -P 5 12M 300k", "top.qcow2");
  copyFileSync("top.qcow2", "packed-top.qcow2");
  io("-c", "write -c -P 9 768k 64k", "packed-top.qcow2");
  img("convert", "-c", "-O", "qcow2", "top.qcow2", "packed.qcow2");
  img("convert", "-O", "qcow2", "-o", "cluster_size=4k", "top.qcow2", "flat.qcow2");
  copyFileSync("base.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
  io("-c", "write -P 7 0 128k", "snapshots.qcow2");
  img("snapshot", "-c", "two words, ünïcode \"quoted\" and longer than its column", "snapshots.qcow2");
  img("create", "-q", "-f", "qcow2", "bitmaps.qcow2", "10M");
  img("bitmap", "--add", "bitmaps.qcow2", "first");
  img("bitmap", "--add", "-g", "128k", "--disable", "bitmaps.qcow2", "second");
  for (const mode of ["metadata", "falloc", "full"]) img("create", "-q", "-f", "qcow2", "-o", `preallocation=${mode}`, `${mode}.qcow2`, "1M");
  img("create", "-q", "-f", "qcow2", "-o", "data_file=data.raw,data_file_raw=on", "data.qcow2", "1M");
  img("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", "encrypt.format=aes,encrypt.key-secret=s", "aes.qcow2", "1M");
  img("create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=abc", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", "luks.qcow2", "1M");
  img("create", "-q", "-f", "qcow2", "-u", "-b", "gone.qcow2", "-F", "qcow2", "orphan.qcow2", "1M");
  img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "loop.qcow2", "1M");
  img("rebase", "-u", "-b", "loop.qcow2", "-F", "qcow2", "loop.qcow2");
  makeFiles();
}

function makeFiles(): void {
  mkdirSync("sub");
  img("create", "-q", "-f", "qcow2", "-b", "../base.qcow2", "-F", "qcow2", "sub/over.qcow2");
  symlinkSync("sub", "link");
  img("create", "-q", "sparse.raw", "10M");
  io("-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 1 5M 12k", "sparse.raw");
  writeFileSync("odd.raw", Buffer.alloc(1300, "x"));
  writeFileSync("none.raw", "");
  writeFileSync("short.qcow2", "QFI\xfb");
  img("create", "-q", "-f", "qcow2", "-b", "sparse.raw", "-F", "raw", "on-raw.qcow2");
  io("-c", "write -P 1 0 64k", "on-raw.qcow2");
  makeDamage();
  makeVdis();
  makeParallels();
  makeQcows();
  makeVhds();
  makeVmdks();
}

/** The first refcount block of these images is their third cluster. */
function makeDamage(): void {
  const block = 2 * 65536;
  copyFileSync("base.qcow2", "leak.qcow2");
  truncateSync("leak.qcow2", 40 * 65536);
  patch("leak.qcow2", block + 2 * 35, [0, 1, 0, 1]);
  copyFileSync("base.qcow2", "corrupt.qcow2");
  patch("corrupt.qcow2", block + 2 * 5, [0, 0]);
  copyFileSync("base.qcow2", "high.qcow2");
  patch("high.qcow2", block + 2 * 5, [0, 3]);
  copyFileSync("base.qcow2", "dirty.qcow2");
  patch("dirty.qcow2", 72, [0, 0, 0, 0, 0, 0, 0, 1]);
  copyFileSync("base.qcow2", "marked.qcow2");
  patch("marked.qcow2", 72, [0, 0, 0, 0, 0, 0, 0, 2]);
  copyFileSync("base.qcow2", "future.qcow2");
  patch("future.qcow2", 72, [0x80, 0, 0, 0, 0, 0, 0, 0]);
  copyFileSync("base.qcow2", "v9.qcow2");
  patch("v9.qcow2", 4, [0, 0, 0, 9]);
}

function makeVdis(): void {
  img("create", "-q", "-f", "vdi", "empty.vdi", "100M");
  img("create", "-q", "-f", "vdi", "some.vdi", "10000k");
  io("-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "-c", "write -P 2 6M 1M", "-c", "write -P 2 9990k 10k", "some.vdi");
  img("create", "-q", "-f", "vdi", "-o", "static=on", "fixed.vdi", "10M");
  io("-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "fixed.vdi");
  for (const [name, at, byte] of [["count", 0x184, 9], ["twice", 0x200 + 20, 3], ["large", 0x200 + 20, 10]] as const) {
    copyFileSync("some.vdi", `${name}.vdi`);
    patch(`${name}.vdi`, at, [byte]);
  }
  copyFileSync("some.vdi", "child.vdi");
  patch("child.vdi", 0x1b8, [1]);
}

function makeParallels(): void {
  img("create", "-q", "-f", "parallels", "empty.hdd", "100M");
  img("create", "-q", "-f", "parallels", "-o", "cluster_size=64k", "some.hdd", "10000k");
  io("-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "-c", "write -P 2 6M 1M", "-c", "write -P 2 9990k 10k", "some.hdd");
  copyFileSync("some.hdd", "surplus.hdd");
  truncateSync("surplus.hdd", 5_000_000);
}

function makeQcows(): void {
  img("create", "-q", "-f", "qcow", "empty.qcow", "100M");
  img("create", "-q", "-f", "qcow", "some.qcow", "10000k");
  io("-f", "qcow", "-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "-c", "write -c -P 2 6M 4k", "-c", "write -P 2 9990k 10k", "some.qcow");
  img("create", "-q", "-f", "qcow", "-b", "base.qcow2", "-F", "qcow2", "over.qcow", "10M");
  io("-c", "write -P 1 5M 100k", "-c", "write -P 1 1000k 99k", "over.qcow");
  img("create", "-q", "-f", "qcow", "--object", "secret,id=s,data=abc", "-o", "encryption=on,encrypt.key-secret=s", "aes.qcow", "1M");
}

const QCOWS = ["empty.qcow", "some.qcow", "over.qcow"];
function makeVmdks(): void {
  const some = ["-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "-c", "write -P 2 9990k 10k"];
  img("create", "-q", "-f", "vmdk", "empty.vmdk", "100M");
  img("create", "-q", "-f", "vmdk", "some.vmdk", "10000k");
  img("create", "-q", "-f", "vmdk", "-o", "zeroed_grain=on", "zeroed.vmdk", "10000k");
  img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "10000k");
  img("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "split.vmdk", "5G");
  img("create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", "sub/split.vmdk", "5G");
  for (const name of ["some.vmdk", "zeroed.vmdk", "flat.vmdk", "split.vmdk", "sub/split.vmdk"]) io(...some, name);
  io("-c", "write -P 3 2047M 2M", "-c", "write -P 4 4099M 1k", "split.vmdk");
  io("-c", "write -P 3 2047M 2M", "-c", "write -P 4 4099M 1k", "sub/split.vmdk");
  io("-c", "write -z 0 64k", "-c", "write -z 5M 64k", "zeroed.vmdk");
  img("convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "some.vmdk", "stream.vmdk");
  img("create", "-q", "-f", "vmdk", "-b", "some.vmdk", "-F", "vmdk", "over.vmdk");
  io("-c", "write -P 1 5M 100k", "-c", "write -P 1 1000k 99k", "over.vmdk");
  img("create", "-q", "-f", "vmdk", "-b", "../split.vmdk", "-F", "vmdk", "-o", "zeroed_grain=on", "sub/over.vmdk", "6G");
  io("-c", "write -P 1 2048M 100k", "-c", "write -z 2049M 1M", "-c", "write -P 7 5500M 1M", "sub/over.vmdk");
  copyFileSync("some.vmdk", "renamed.vmdk");
  copyFileSync("empty.vmdk", "future.vmdk");
  patch("future.vmdk", 4, [4]);
}

const VMDKS = ["empty.vmdk", "some.vmdk", "zeroed.vmdk", "flat.vmdk", "split.vmdk", "sub/split.vmdk", "stream.vmdk", "over.vmdk", "sub/over.vmdk", "renamed.vmdk", "future.vmdk", "split-s001.vmdk"];
function makeVhds(): void {
  img("create", "-q", "-f", "vpc", "empty.vhd", "100M");
  img("create", "-q", "-f", "vpc", "-o", "force_size=on", "some.vhd", "10000k");
  io("-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "-c", "write -P 2 9990k 10k", "some.vhd");
  img("create", "-q", "-f", "vpc", "-o", "subformat=fixed", "fixed.vhd", "10M");
  io("-f", "vpc", "-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "fixed.vhd");
  img("create", "-q", "-f", "vhdx", "empty.vhdx", "100M");
  img("create", "-q", "-f", "vhdx", "-o", "block_size=1M", "some.vhdx", "10000k");
  io("-c", "write -P 1 5M 1M", "-c", "write -P 1 2000k 100k", "-c", "write -P 2 9990k 10k", "some.vhdx");
  img("create", "-q", "-f", "vhdx", "-o", "subformat=fixed,block_state_zero=off", "fixed.vhdx", "10M");
}

const VHDS = ["empty.vhd", "some.vhd", "fixed.vhd"], VHDXS = ["empty.vhdx", "some.vhdx", "fixed.vhdx"];
const PARALLELS = ["empty.hdd", "some.hdd", "surplus.hdd"];
const VDIS = ["empty.vdi", "some.vdi", "fixed.vdi", "count.vdi", "twice.vdi", "large.vdi"];
const IMAGES = [
  ...VDIS, ...PARALLELS, ...VHDS, ...VHDXS, ...QCOWS, ...VMDKS,
  "empty.qcow2", "old.qcow2", "new.qcow2", "base.qcow2", "top.qcow2", "packed-top.qcow2", "packed.qcow2", "flat.qcow2", "snapshots.qcow2", "bitmaps.qcow2",
  "metadata.qcow2", "falloc.qcow2", "full.qcow2", "data.qcow2", "aes.qcow2", "luks.qcow2", "orphan.qcow2", "loop.qcow2", "sub/over.qcow2", "link/over.qcow2", "./top.qcow2",
  "sparse.raw", "odd.raw", "none.raw", "short.qcow2", "on-raw.qcow2", "leak.qcow2", "corrupt.qcow2", "dirty.qcow2", "marked.qcow2", "future.qcow2", "v9.qcow2", "nothing-here", "sub",
];

/** Same output and exit code; what is said of a failure may differ, whether something is said not. */
async function expectSame(args: readonly string[]): Promise<void> {
  const wanted = qemuImg(...args), ours = await disk86(...args);
  expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  });
  afterAll(() => process.chdir(home));

  describe.each(["", "--output=json", "--backing-chain", "--backing-chain --output=json"])("info %s", (options) => {
    test.each(IMAGES)("%s", async (image) => { await expectSame(["info", ...words(options), image]); });
  });

  // Features that we name and refuse where data would be read, and QEMU has; a circle, on which QEMU hangs;
  // a block behind the end of its file, which QEMU takes for zeros; VHDX, of which QEMU does not know where the data are.
  const READABLE = IMAGES.filter((image) => !["loop.qcow2", "large.vdi", ...VHDXS].includes(image));
  describe.each(["", "--output=json", "-s 600k -l 1M --output=json", "--start-offset=3M", "-s 1G --output=json", "-l 0 --output=json"])("map %s", (options) => {
    test.each(READABLE)("%s", async (image) => { await expectSame(["map", ...words(options), image]); });
  });

  // A check looks at one image's own tables: it needs neither the images below nor a key, which QEMU asks for.
  const MORE = new Set(["orphan.qcow2", "loop.qcow2", "aes.qcow2", "luks.qcow2"]);
  const ALONE = IMAGES.filter((image) => !MORE.has(image));
  describe.each(["", "--output=json", "-q"])("check %s", (options) => {
    test.each(ALONE)("%s", async (image) => { await expectSame(["check", ...words(options), image]); });
  });

  test.each([...MORE])("check of %s", async (image) => { expect(await disk86("check", image)).toMatchObject({ status: 0, stderr: "" }); });

  test.each([["map", "loop.qcow2", /circle/], ["info", "future.qcow2", /unknown incompatible feature bit 63/]])("%s of %s says why not", async (verb, image, why) => {
    const { status, stderr } = await disk86(verb, image);
    expect(status).toBe(1);
    expect(stderr).toMatch(why);
  });

  test.each([["leaks", "leak.qcow2"], ["all", "leak.qcow2"], ["all", "high.qcow2"], ["leaks", "high.qcow2"], ["all", "dirty.qcow2"], ["all", "marked.qcow2"], ["leaks", "base.qcow2"], ["leaks", "surplus.hdd"], ["all", "surplus.hdd"], ["all", "some.hdd"]])("check -r %s %s", async (repair, image) => {
    copyFileSync(image, "copy.qcow2");
    const wanted = qemuImg("check", "-r", repair, "copy.qcow2");
    copyFileSync(image, "copy.qcow2");
    const ours = await disk86("check", "-r", repair, "copy.qcow2");
    expect(ours.status).toBe(wanted.status);
    expect(withoutEnd(ours.stdout)).toBe(withoutEnd(wanted.stdout));
    expect(qemuImg("check", "copy.qcow2").status).toBe(0);
  });

  test.each(VDIS)("check -r all %s", async (image) => { await expectSame(["check", "-r", "all", image]); });

  test("a VDI that stands on another is told of, and refused by name", async () => {
    expect(await disk86("info", "child.vdi")).toMatchObject({ status: 0 });
    const { status, stderr } = await disk86("map", "child.vdi");
    expect(status).toBe(1);
    expect(stderr).toMatch(/differencing/);
  });

  test("check -r all of a lost refcount mends it", async () => {
    copyFileSync("corrupt.qcow2", "copy.qcow2");
    expect((await disk86("check", "-r", "all", "copy.qcow2")).status).toBe(0);
    expect(qemuImg("check", "copy.qcow2").status).toBe(0);
    expect(qemuImg("compare", "base.qcow2", "copy.qcow2").status).toBe(0);
  });

  test.each([
    "info", "info a b", "info --output=xml base.qcow2", "info -f vdi0 base.qcow2", "info -f vpc fixed.vhd", "info -f vpc --output=json fixed.vhd", "info -f vpc base.qcow2", "map -f vpc fixed.vhd", "map -f vpc --output=json fixed.vhd", "check -f vpc some.vhd", "info -f raw base.qcow2", "info -f qcow2 odd.raw", "info -f",
    "info --frob base.qcow2", "info -Z base.qcow2", "info -U base.qcow2", "info base.qcow2 --output json", "info -- base.qcow2",
    "info -fqcow2 base.qcow2", "info -Ufqcow2 base.qcow2", "info --backing-chain=yes base.qcow2", "map", "map -s -1 base.qcow2",
    "map -s zz base.qcow2", "map -l 1.5 base.qcow2", "map -s 0x10000 -l 1.5M base.qcow2", "map -f raw base.qcow2", "map -f qcow2 odd.raw", "check",
    "check -r some base.qcow2", "check -f raw base.qcow2", "check -T foo base.qcow2", "check -T none base.qcow2", "frobnicate", "",
  ])("arguments: %s", async (line) => { await expectSame(words(line)); });
});

const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

/** Where the file ends after a repair depends on where tables went. */
function withoutEnd(text: string): string {
  return text.replace(/Image end offset: \d+/, "");
}
