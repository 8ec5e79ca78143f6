import { copyFileSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { run } from "../../disk/task.ts";
import { checkBitmaps, copyBitmaps } from "../../disk/tools/copyBitmaps.ts";
import { openImageDisk } from "../../disk/tools/images.ts";
import { readBitmaps } from "../support/qcow2-bitmaps.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

/** Same output and exit code; what is said of a failure may differ, whether something is said not. */
async function expectSame(line: string): Promise<void> {
  const wanted = qemuImg(...words(line)), ours = await disk86(...words(line));
  expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
}

function makeImages(): void {
  img("create", "-q", "-f", "qcow2", "plain.qcow2", "10M");
  img("create", "-q", "-f", "raw", "disk.raw", "1M");
  img("create", "-q", "-f", "qcow2", "-o", "compat=0.10", "old.qcow2", "10M");
  for (const [name, size] of [["other.qcow2", "10M"], ["large.qcow2", "20M"]] as const) {
    img("create", "-q", "-f", "qcow2", name, size);
    img("bitmap", "--add", "-g", "512", name, "theirs");
    io("-c", "write 3M 700", "-c", "write 10000k 1", name);
  }
  copyFileSync("plain.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
  io("-c", "write -P 7 0 128k", "snapshots.qcow2");
  img("snapshot", "-c", "two words, ünïcode \"quoted\" and longer than its column", "snapshots.qcow2");
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  });
  afterAll(() => process.chdir(home));

  test.each([
    "snapshot -l snapshots.qcow2", "snapshot -l plain.qcow2", "snapshot -l disk.raw", "snapshot -q -U -l snapshots.qcow2", "snapshot snapshots.qcow2",
    "snapshot -l nothing-here", "snapshot -l", "snapshot -l a b", "snapshot --frob", "snapshot -l -c x snapshots.qcow2",
  ])("%s", async (line) => { await expectSame(line); });

  // Each line is a session: the actions on one image, by QEMU and by us.
  test.each([
    ["--add first", "--add first", "--add -g 512 fine", "--add -g 2G --disable whole", "--remove first", "--remove first"],
    ["--add a", "--add --disable b", "--enable --disable a", "--enable b", "--clear a", "--clear --enable nope", "--disable nope"],
    ["--add -g 4k a", "--add -g 64k b", "--add -g 512 c", "@write 100k 200k", "--merge a b", "--merge b --merge a c", "--add --merge a d", "--merge nope a", "--merge a nope", "--merge a a", "--clear a", "--add --remove e"],
    ["--add a", "@write 1M 1M", "--merge a -b other.qcow2 a", "--merge theirs -b other.qcow2 a", "--merge theirs -b other.qcow2 -F qcow2 a", "--merge theirs -b large.qcow2 a", "--merge a -b disk.raw -F raw a"],
    ["--add -g 1000 a", "--add -g 256 a", "--add -g 4G a", "--add -g zz a", "--add -g 0 a", "--clear -g 512 a", "--clear -b other.qcow2 a", "--merge a -F qcow2 a", "a", "--add", "--add x y", "--frob a"],
  ])("bitmap %s", async (...lines) => {
    const told: unknown[] = [];
    for (const run of [qemuImg, disk86]) {
      copyFileSync("plain.qcow2", "image.qcow2");
      const results: unknown[] = [];
      for (const line of lines) {
        if (line.startsWith("@")) io("-c", line.slice(1), "image.qcow2");
        else {
          const all = words(line), name = all.at(-1) ?? "", { status, stdout, stderr } = await run("bitmap", ...all.slice(0, -1), "image.qcow2", name);
          results.push([line, status, stdout, stderr.replace(/^(qemu-img|disk86): /gm, "").split("\n")[0]]);
        }
        const { bitmaps } = readBitmaps(new Uint8Array(readFileSync("image.qcow2")));
        results.push(bitmaps.map(({ name, auto, inUse, granularity, dirty }) => [name, auto, inUse, granularity, dirty.join(" ")]), img("info", "image.qcow2").replace(/disk size.*/, ""));
        img("check", "image.qcow2");
      }
      told.push(results);
    }
    expect(told[1]).toEqual(told[0]);
  });

  test("bitmap of formats and versions that have none", async () => {
    for (const line of ["bitmap --add -f raw disk.raw a", "bitmap --remove -f raw disk.raw a", "bitmap --add old.qcow2 a", "bitmap --add nothing-here a", "bitmap --merge x -b nothing-here plain.qcow2 a"]) await expectSame(line);
  });

  test("bitmaps are copied to another image as convert --bitmaps does", async () => {
    copyFileSync("plain.qcow2", "image.qcow2");
    for (const args of [["--add", "-g", "4k", "image.qcow2", "a"], ["--add", "--disable", "image.qcow2", "b"]]) img("bitmap", ...args);
    io("-c", "write 100k 200k", "-c", "write 5M 1", "image.qcow2");
    img("convert", "--bitmaps", "-O", "qcow2", "image.qcow2", "wanted.qcow2");
    img("convert", "-O", "qcow2", "image.qcow2", "ours.qcow2");
    const { disk: source } = await openImageDisk("image.qcow2", "qcow2", { lock: true }), { disk: target } = await openImageDisk("ours.qcow2", "qcow2", { lock: true, writable: true });
    await run(checkBitmaps(source, false));
    await run(copyBitmaps(source, target, () => { throw new Error("nothing is left out"); }));
    await Promise.all([source.close(), target.close()]);
    const told = (file: string): unknown => readBitmaps(new Uint8Array(readFileSync(file))).bitmaps.map(({ name, auto, granularity, dirty }) => [name, auto, granularity, dirty.join(" ")]);
    expect(told("ours.qcow2")).toEqual(told("wanted.qcow2"));
    img("check", "ours.qcow2");
  });

  test.each(["-c", "-a", "-d"])("snapshot %s is refused by its name", async (action) => {
    const { status, stderr } = await disk86("snapshot", action, "one", "snapshots.qcow2");
    expect(status).toBe(1);
    expect(stderr).toContain(`${action} is not supported`);
  });
});
