import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

const IMAGES = ["flat.raw", "sparse.raw", "base.qcow2", "top.qcow2", "old.qcow2", "packed.qcow2", "bitmaps.qcow2", "other.qed", "snapshots.qcow2", "null-co://"];
const MEASURE = [
  ...["-O qcow2", "-O qcow2 -o cluster_size=4k", "-O qcow2 -o cluster_size=2M", "-O qcow2 -o extended_l2=on", "-O qcow2 -o compat=0.10", "-O qcow2 -o refcount_bits=1", "-O qcow2 -o refcount_bits=64,cluster_size=512", "-O qcow2 -o preallocation=metadata", "-O qcow2 -o preallocation=full", "-O qcow2 -o data_file=x", "-O raw", ""].flatMap((target) => [
    ...["0", "1000", "1G", "1T"].map((size) => `${target} --size ${size}`), `${target} top.qcow2`, `--output=json ${target} sparse.raw`,
  ]),
  ...IMAGES.map((image) => `-O qcow2 ${image}`), ...IMAGES.map((image) => `-O qcow2 -o cluster_size=4k --output=json ${image}`),
  "", "a b", "-O qcow2 --size 1G top.qcow2", "-O foo --size 1G", "-O vdi --size 1G", "-O qed --size 1G", "-O vmdk --size 1G", "-O qcow --size 1G", "-O vpc --size 1G", "--size x", "--size 8E", "-O qcow2 --size 8E", "-O qcow2 --size 1P", "-O qcow2 -o foo=1 --size 1G", "-O qcow2 -o cluster_size=3k --size 1G", "-O qcow2 -o size=5M --size 1G", "-O qcow2 -o backing_file=x,backing_fmt=raw top.qcow2",
  "-f qcow2 --size 1G", "--image-opts --size 1G", "-l one --size 1G", "-f foo top.qcow2", "-f raw top.qcow2", "-U top.qcow2", "--image-opts file.filename=top.qcow2", "-f qcow2 --image-opts file.filename=top.qcow2", "-l one -O qcow2 snapshots.qcow2", "-l gone -O qcow2 snapshots.qcow2", "gone", "--output=foo --size 1G",
];
const DD = [
  "if=top.qcow2 of=x", "if=top.qcow2 of=x bs=1M", "if=top.qcow2 of=x bs=64k count=17", "if=top.qcow2 of=x bs=1M count=2 skip=1", "if=top.qcow2 of=x bs=64k skip=15", "if=top.qcow2 of=x bs=1M skip=100", "if=top.qcow2 of=x bs=1M skip=10", "if=top.qcow2 of=x count=0", "if=flat.raw of=x bs=1000 count=3", "if=flat.raw of=x bs=1000 skip=3", "if=top.qcow2", "of=x", "", "foo if=top.qcow2 of=x", "foo=1 if=top.qcow2 of=x", "bs=x if=top.qcow2 of=x", "bs=0 if=top.qcow2 of=x", "bs=3G if=top.qcow2 of=x", "count=x if=top.qcow2 of=x", "count=-1 if=top.qcow2 of=x", "skip=x if=top.qcow2 of=x",
  "-O foo if=top.qcow2 of=x", "-O qcow2 if=top.qcow2 of=x", "-O vdi if=top.qcow2 of=x", "-O qcow2 if=top.qcow2 of=x bs=1M skip=1", "-f raw if=top.qcow2 of=x", "-f foo if=top.qcow2 of=x", "--image-opts if=file.filename=top.qcow2 of=x", "-f raw --image-opts if=file.filename=top.qcow2 of=x", "if=gone of=x", "if=top.qcow2 of=no/x", "if=top.qcow2 of=top.qcow2", "if=flat.raw if=top.qcow2 of=x", "-U if=top.qcow2 of=x", "-n if=top.qcow2 of=x", "if=packed.qcow2 of=there",
];
const BENCH = [
  "-c 10 top.qcow2", "-c 10 -w -d 3 --flush-interval=3 -o 64k -s 8k -S 16k --pattern=7 there.qcow2", "-c 10 -w --flush-interval=3 --no-drain -d 3 there.qcow2", "-c 10 -q top.qcow2", "-c 0 top.qcow2", "-c x top.qcow2", "-d x top.qcow2", "--pattern=300 top.qcow2", "--flush-interval=3 top.qcow2", "-w --flush-interval=3 -d 64 -c 5 there.qcow2", "-w --no-drain -c 5 there.qcow2", "-t foo top.qcow2", "-t none -c 3 top.qcow2", "-i foo top.qcow2", "-i threads -c 3 top.qcow2", "-s 5k -S 5k -c 3 top.qcow2", "-o 20M -c 3 top.qcow2", "-o x top.qcow2", "-S x top.qcow2", "-s x top.qcow2", "a b", "", "gone",
  "-S 0 -c 2 top.qcow2", "--pattern=5 -c 2 top.qcow2", "-s 20M -c 2 top.qcow2", "-w --flush-interval=x top.qcow2", "-w -c 20 -s 1M --pattern=9 there.qcow2", "-w -c 3 --image-opts driver=null-co,size=1G", "-c 5000 -s 64k top.qcow2", "-f raw -c 3 top.qcow2", "-f qcow2 -w -c 1 flat.raw",
];

function makeImages(): void {
  mkdirSync("sub");
  img("create", "-q", "flat.raw", "4M");
  io("-f", "raw", "-c", "write -P 5 0 4M", "flat.raw");
  img("create", "-q", "sparse.raw", "10M");
  io("-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "sparse.raw");
  img("create", "-q", "-f", "qcow2", "base.qcow2", "10M");
  io("-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "-c", "write -z 6M 1M", "base.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2");
  io("-c", "write -P 4 7M 100k", "-c", "write -z 5M 64k", "-c", "write -P 5 1100k 1k", "top.qcow2");
  img("convert", "-O", "qcow2", "-o", "compat=0.10,cluster_size=4k", "top.qcow2", "old.qcow2");
  img("convert", "-c", "-O", "qcow2", "top.qcow2", "packed.qcow2");
  img("convert", "-O", "qed", "top.qcow2", "other.qed");
  copyFileSync("base.qcow2", "bitmaps.qcow2");
  img("bitmap", "--add", "bitmaps.qcow2", "first");
  img("bitmap", "--add", "-g", "512", "bitmaps.qcow2", "a name of another length");
  copyFileSync("base.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
}

function makeThere(): void {
  rmSync("x", { force: true });
  writeFileSync("there", Buffer.alloc(12 << 20, 7));
  img("create", "-q", "-f", "qcow2", "there.qcow2", "12M");
}

/** What a guest would read from what was made; a qcow2 image must be in order. */
function contents(line: string): string[] {
  return ["x", "there", "there.qcow2"].filter((file) => existsSync(file)).map((file) => {
    const format = file === "x" ? (/-O (\w+)/.exec(line)?.[1] ?? "raw") : file.includes("qcow2") ? "qcow2" : "raw";
    if (format === "qcow2") img("check", "-q", "-f", format, file);
    img("convert", "-f", format, "-O", "raw", file, "content");
    return createHash("sha256").update(readFileSync("content")).digest("hex");
  });
}

async function expectSame(line: string): Promise<void> {
  const args = words(line), changes = /^(dd|bench.* -w)/.test(line);
  if (changes) makeThere();
  const wanted = qemuImg(...args), made = changes && wanted.status === 0 ? contents(line) : [];
  if (changes) makeThere();
  const ours = await disk86(...args), plain = (text: string): string => text.replace(/[\d.]+ seconds/, "");
  const said = ({ status, stdout, stderr }: typeof wanted) => ({ status, stdout: status === 0 ? plain(stdout) : "", complained: stderr !== "" });
  expect(said(ours), `${wanted.stderr}${ours.stderr}`).toEqual(said(wanted));
  expect(made.length > 0 ? contents(line) : made).toEqual(made);
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("measure, dd and bench, as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  }, 60_000);
  afterAll(() => process.chdir(home));

  test.each(MEASURE.map((line) => `measure ${line}`))("%s", (line) => expectSame(line));
  test.each(DD.map((line) => `dd ${line}`))("%s", (line) => expectSame(line));
  test.each(BENCH.map((line) => `bench ${line}`))("%s", (line) => expectSame(line));
});
