import { copyFileSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { inTurns } from "../support/turns.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "").map((word) => (word === "''" ? "" : word));

const IMAGES = ["a.raw", "odd.raw", "q.qcow2", "old.qcow2", "top.qcow2", "packed.qcow2", "snapshots.qcow2", "small-clusters.qcow2"];

/** `x` is a copy of the image. */
const LINES = [
  "x 20M", "x +1M", "x -1M", "--shrink x -1M", "--shrink x 5M", "x 5M", "x 10M", "x +0", "x 0", "--shrink x 0", "--shrink x -20M", "--shrink x -10M", "--shrink x 512",
  "--shrink x 5243392", "x 6G", "x +6.5G", "-f raw x 20M", "-f qcow2 x 20M", "-f foo x 1M", "x 1.3", "x abc", "x ''", "x +", "x +-1", "x 0x2000000", "x", "20M", "", "x 20M y", "x 20M -q",
  "--preallocation=off x 20M", "--preallocation=metadata x 20M", "--preallocation=falloc x 20M", "--preallocation=full x 20M", "--preallocation=falloc x +1M", "--preallocation=full --shrink x 5M", "--preallocation=metadata x 10M", "--preallocation=falloc -q x +512", "--preallocation=foo x 20M", "-q x 20M", "-q --shrink x 5M", "-q x 5M", "x 1000", "x 20000001", "x +1", "gone 1M", "x 8E", "x +8E", "x 7E", "x 16E",
  "x -f raw 20M", "-z x 1M", "-U x 20M", "--shrink x 5M --preallocation off", "x -- -1M", "--shrink -- x -1M",
];

/** What a guest would read: the bytes' hash, and the size. */
function content(file: string, format: string): string {
  img("convert", "-f", format, "-O", "raw", file, "content.raw");
  const { "virtual-size": size } = JSON.parse(img("info", "-f", format, "--output=json", file)) as { "virtual-size": number };
  const hash = runTool("sha256sum", ["content.raw"]).split(" ")[0];
  rmSync("content.raw");
  return `${size} ${hash}`;
}

function makeImages(): void {
  img("create", "-q", "a.raw", "10M");
  io("-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 9M 1M", "a.raw");
  writeFileSync("odd.raw", Buffer.alloc(1300, "x"));
  img("create", "-q", "-f", "qcow2", "q.qcow2", "10M");
  io("-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "-c", "write -P 3 9M 1M", "q.qcow2");
  img("convert", "-O", "qcow2", "-o", "compat=0.10", "q.qcow2", "old.qcow2");
  img("convert", "-O", "qcow2", "-o", "cluster_size=512", "q.qcow2", "small-clusters.qcow2");
  img("convert", "-c", "-O", "qcow2", "q.qcow2", "packed.qcow2");
  // A backing file longer than the overlay: what it has there must not show when the overlay grows.
  img("create", "-q", "-f", "qcow2", "long.qcow2", "30M");
  io("-c", "write -P 7 0 30M", "long.qcow2");
  img("create", "-q", "-f", "qcow2", "-b", "long.qcow2", "-F", "qcow2", "top.qcow2", "10M");
  io("-c", "write -P 4 7M 300k", "top.qcow2");
  copyFileSync("q.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("resize, as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  });
  afterAll(() => process.chdir(home));

  describe.each(IMAGES)("%s", (image) => {
    const format = image.endsWith(".raw") ? "raw" : "qcow2";
    test.each(inTurns(LINES, 2, IMAGES.indexOf(image)))("%s", async (line) => {
      const small = !/\dG/.test(line);
      copyFileSync(image, "x");
      const wanted = qemuImg("resize", ...words(line)), wantedContent = small ? content("x", format) : "";
      if (wanted.status === 0 && format === "qcow2") img("check", "-q", "x");
      copyFileSync(image, "x");
      const ours = await disk86("resize", ...words(line));
      expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
      expect(small ? content("x", format) : "").toBe(wantedContent);
      if (format === "qcow2" && !line.includes("-f raw")) img("check", "-q", "x");
      expect(wanted.status === 0 || readFileSync("x").equals(readFileSync(image))).toBe(true);
    });
  });

  test.each(["raw", "qcow2"])("a signal during a full preallocation of %s undoes the resize", async (format) => {
    copyFileSync(format === "raw" ? "a.raw" : "q.qcow2", "x");
    const before = content("x", format);
    const others = process.listenerCount("SIGINT");
    const soon = setInterval(() => { if (process.listenerCount("SIGINT") > others) process.emit("SIGINT", "SIGINT"); }, 100);
    try {
      expect(await disk86("resize", "-f", format, "--preallocation=full", "x", "4G")).toMatchObject({ status: 130, stdout: "" });
    } finally {
      clearInterval(soon);
    }
    expect(content("x", format)).toBe(before);
    if (format === "qcow2") img("check", "-q", "x");
  });

  test("shrinking says what it needs", async () => {
    const { stderr } = await disk86("resize", "q.qcow2", "5M");
    expect(stderr).toContain("Use the --shrink option to perform a shrink operation.");
  });
});
