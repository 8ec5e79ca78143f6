import { createHash } from "node:crypto";
import { closeSync, ftruncateSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86 } from "../support/cli.ts";
import { Random } from "../support/generator.ts";
import { freshSeed } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const MIB = 2 ** 20, GIB = 2 ** 30, seed = freshSeed();
const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);

/** Every format that QEMU both makes and reads, in its variants. */
const FORMATS: readonly (readonly [format: string, options: string])[] = [
  ["raw", ""], ["qcow2", ""], ["qcow2", "compat=0.10"], ["qcow2", "cluster_size=512"], ["qcow2", "extended_l2=on"], ["qcow2", "preallocation=metadata"], ["qcow", ""], ["qed", ""], ["qed", "cluster_size=8k,table_size=4"],
  ["vmdk", "subformat=monolithicSparse"], ["vmdk", "subformat=monolithicFlat"], ["vmdk", "subformat=twoGbMaxExtentSparse"], ["vmdk", "subformat=twoGbMaxExtentFlat"], ["vmdk", "subformat=streamOptimized"],
  ["vdi", ""], ["vdi", "static=on"], ["vpc", "subformat=dynamic"], ["vpc", "subformat=fixed"], ["vpc", "subformat=dynamic,force_size=on"], ["vhdx", "subformat=dynamic"], ["vhdx", "subformat=fixed"], ["vhdx", "block_size=1M"], ["parallels", ""],
];
const CHAINED: readonly string[] = ["qcow2", "qcow", "qed", "vmdk"];

/** What the disks hold: their size, and where in them there is data. */
const CONTENTS: readonly (readonly [name: string, size: number, data: readonly (readonly [at: number, length: number])[]])[] = [
  ["empty", 8 * MIB, []],
  ["sparse", 8 * MIB, [[0, 4096], [3 * MIB - 512, 1024], [8 * MIB - 65536, 65536]]],
  ["full", 8 * MIB, [[0, 8 * MIB]]],
  ["odd-sized", 5 * MIB + 3 * 512, [[512, 512], [2 * MIB, 100_000], [5 * MIB, 3 * 512]]],
  ["larger than 4 GiB", 5 * GIB, [[0, 512], [2 * GIB - 512, 1024], [4 * GIB - 512, 1024], [5 * GIB - 4096, 4096]]],
];

function makeRaw(file: string, random: Random, size: number, data: readonly (readonly [at: number, length: number])[]): void {
  const fd = openSync(file, "w");
  ftruncateSync(fd, size);
  for (const [at, length] of data) writeSync(fd, random.bytes(length), 0, length, at);
  closeSync(fd);
}

const sha256 = (file: string): string => createHash("sha256").update(readFileSync(file)).digest("hex");

/** Large disks are nearly all holes, which need not be read to be compared. */
const same = (a: string, b: string, large: boolean): boolean => (large ? img("compare", "-s", "-f", "raw", "-F", "raw", a, b).includes("identical") : sha256(a) === sha256(b));

describe.skipIf(!requireTool("qemu-img", "qemu-io"))(`convert to raw of every format that QEMU makes (SEED=${seed})`, () => {
  beforeAll(() => {
    process.chdir(folder);
    const random = new Random(seed);
    for (const [name, size, data] of CONTENTS) makeRaw(`${name}.raw`, random, size, data);
  });
  afterAll(() => process.chdir(home));

  /** Both programs copy it to raw: by its name alone where QEMU probes it, and by its format. */
  async function expectSame(source: string, format: string, large: boolean): Promise<void> {
    img("convert", "-f", format, "-O", "raw", source, "theirs");
    expect(await disk86("convert", "-f", format, "-O", "raw", source, "ours")).toMatchObject({ status: 0, stderr: "" });
    expect(same("ours", "theirs", large)).toBe(true);
  }

  describe.each(FORMATS)("%s %s", (format, options) => {
    test.each(CONTENTS)("%s", async (name, size) => {
      img("convert", "-f", "raw", "-O", format, ...(options === "" ? [] : ["-o", options]), `${name}.raw`, "source.img");
      await expectSame("source.img", format, size > GIB);
      rmSync("source.img");
    });
  });

  describe.each(CHAINED)("a chain of %s", (format) => {
    // Where a qcow has a backing file its clusters are sectors: QEMU takes minutes for a large one.
    test.each(["sparse", "odd-sized", ...(format === "qcow" ? [] : ["larger than 4 GiB"])])("%s", async (name) => {
      const vmdk = format === "vmdk", base = vmdk ? "base.vmdk" : `${name}.raw`;
      if (vmdk) img("convert", "-f", "raw", "-O", "vmdk", `${name}.raw`, base);
      img("create", "-q", "-f", format, "-b", base, "-F", vmdk ? "vmdk" : "raw", "middle.img");
      runTool("qemu-io", ["-f", format, "-c", "write -P 1 64k 4k", "-c", "write -P 2 3M 192k", "-c", "write -P 3 4M 64k", "middle.img"]);
      img("create", "-q", "-f", format, "-b", "middle.img", "-F", format, "top.img");
      runTool("qemu-io", ["-f", format, "-c", "write -P 4 3170304 5k", "-c", "write -z 4M 64k", "top.img"]);
      await expectSame("top.img", format, name.startsWith("larger"));
    });
  });

  test("an image of which nothing stands in the file is all zeros", async () => {
    writeFileSync("none.raw", "");
    await expectSame("none.raw", "raw", false);
  });
});
