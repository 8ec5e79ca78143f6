import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { createQcow } from "../../disk/formats/qcow1/create.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, tryTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

/** QEMU makes one geometry without and one with a backing file, but works on every one. */
const ROWS: readonly (readonly [clusterBits: number, l2Bits: number, size: number])[] = [
  [12, 9, 3 * MIB], [12, 9, 512], [12, 9, 3 * MIB + 512], [9, 12, MIB], [9, 6, MIB + 512], [9, 13, MIB], [16, 6, 9 * MIB + 1024], [16, 13, 3 * MIB], [10, 7, MIB], [13, 8, 5 * MIB + 512],
];

let count = 0;
const newImage = (): QemuImage => new QemuImage(folder, `qcow${++count}.qcow`, "qcow");

function make(image: QemuImage, options: Parameters<typeof createQcow>[1]): void {
  const file = FileStorage.open(image.path, { mode: "create" });
  void run(createQcow(file, options));
  file.close();
}

/** QEMU and we take turns on one image; each must find what the other left. */
async function takeTurns(random: Random, image: QemuImage, size: number, qemuWrites = true): Promise<void> {
  for (let turn = 0; turn < 2; turn++) {
    if (qemuWrites) image.scribble(random, STEPS, size);
    if (qemuWrites) image.packBlocks(random, 2, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    const after = await scribbled(random, disk, before, STEPS);
    await disk.close();
    image.expectSound(after);
  }
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one qcow image", () => {
  describe.each(ROWS)("clusters of 2^%i, tables of 2^%i, %i bytes", (clusterBits, l2Bits, size) => {
    seeded("random writes, zeroes and discards by both", async (random) => {
      const image = newImage();
      make(image, { size, clusterBits, l2Bits });
      await takeTurns(random, image, size);
    });

    // Of a cluster that it takes above a backing file QEMU zeroes what it does not write: only with sectors that is nothing.
    seeded("above a base", async (random) => {
      const image = newImage(), base = random.bytes(random.pick([size, Math.ceil(size / 2), size * 2]));
      writeFileSync(join(folder, "base.raw"), base);
      make(image, { size, clusterBits, l2Bits, backingFile: "base.raw" });
      await takeTurns(random, image, size, clusterBits === 9);
      expectBytes(readFileSync(join(folder, "base.raw")), base, "the base");
    });
  });

  for (const [how, baseSize] of [["shorter", MIB + 300 * KIB + 512], ["longer", 4 * MIB]] as const) {
    seeded(`an overlay by QEMU above a ${how} raw base`, async (random) => {
      const image = newImage();
      writeFileSync(join(folder, "base.raw"), random.bytes(baseSize));
      image.create(2 * MIB + 512, "", ["-b", "base.raw", "-F", "raw"]);
      await takeTurns(random, image, 2 * MIB + 512);
    });
  }

  seeded("an overlay above qcow, which is probed, as that above it is", async (random) => {
    const base = newImage(), middle = newImage(), image = newImage();
    base.create(MIB, "");
    base.scribble(random, 10, MIB);
    middle.create(2 * MIB, "", ["-b", base.path.slice(folder.length + 1), "-F", "qcow"]);
    middle.scribble(random, 10, 2 * MIB);
    image.create(2 * MIB, "", ["-b", middle.path.slice(folder.length + 1), "-F", "qcow"]);
    image.scribble(random, STEPS, 2 * MIB);
    // What is probed is only trusted where the user says so.
    await expect(image.bytes()).rejects.toThrow(/nothing records that this file is of format qcow/);
    expectBytes(await image.bytes({ trustProbe: true }), image.contents(), "three images");
  });

  seeded("compressed by qemu-img", async (random) => {
    const image = newImage(), plain = new Uint8Array(2 * MIB + 4 * KIB);
    for (let at = 0; at < plain.length; at += 40_000) {
      const part = random.chance(0.3) ? random.bytes(40_000) : random.chance(0.2) ? new Uint8Array(40_000) : random.text(40_000);
      plain.set(part.subarray(0, plain.length - at), at);
    }
    writeFileSync(join(folder, "plain.raw"), plain);
    // QEMU 7.2 makes the whole image, and then fails without a word: to its last request, for no bytes, this format says no.
    tryTool("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow", join(folder, "plain.raw"), image.path]);
    expectBytes(await image.bytes(), plain, "what was compressed");
    await takeTurns(random, image, plain.length);
  });

  for (const [clusterBits, l2Bits] of [[9, 6], [12, 9], [14, 10], [16, 13]] as const) {
    seeded(`clusters of 2^${clusterBits} that QEMU compressed`, async (random) => {
      const image = newImage(), cluster = 2 ** clusterBits, size = cluster * 40;
      make(image, { size, clusterBits, l2Bits });
      image.io(...Array.from({ length: 30 }, (_, i) => `write -q ${random.chance(0.7) ? "-c " : ""}-P ${i + 1} ${random.int(40) * cluster} ${cluster}`));
      await takeTurns(random, image, size);
    });
  }

  test("what QEMU encrypted is told of, and refused by name", async () => {
    const image = newImage();
    image.create(MIB, "encryption=on,encrypt.key-secret=s", ["--object", "secret,id=s,data=abc"]);
    await expect(image.bytes()).rejects.toThrow(/encrypted \(AES\)/);
    for (const output of ["human", "json"]) expect(await disk86("info", `--output=${output}`, image.path)).toEqual(qemuImg("info", `--output=${output}`, image.path));
  });
});

describe.skipIf(!requireTool("qemu-img"))("the command line, as qemu-img", () => {
  const path = join(folder, "new.qcow");
  test.each([
    "64k", "1", "1000", "0", "3M", "100G", "1T", "-o encryption=off 1M", "-b gone.raw -u -F raw 5M", "-b nothing -u 70000", "-b base.raw -F raw", "-F raw 1M", "-o cluster_size=4k 1M",
  ])("create %s, info, check", async (line) => {
    writeFileSync(join(folder, "base.raw"), Buffer.alloc(100_000));
    const words = line.split(" "), size = /^\d/.test(words.at(-1) ?? "") ? [words.pop() ?? ""] : [], args = ["create", "-f", "qcow", ...words, path, ...size];
    rmSync(path, { force: true });
    const wanted = qemuImg(...args), file = wanted.status === 0 ? readFileSync(path) : undefined;
    rmSync(path, { force: true });
    const ours = await disk86(...args);
    expect({ status: ours.status, failed: ours.stderr !== "" }).toEqual({ status: wanted.status, failed: wanted.stderr !== "" });
    if (file === undefined) return;
    expect(ours.stdout).toBe(wanted.stdout);
    expectBytes(readFileSync(path), file, "the new file");
    for (const report of [["info", "--output=json", path], ["info", path], ...(line.includes("gone") ? [] : [["check", path], ["check", "--output=json", path]]), ["resize", path, "5T"]]) {
      const wants = qemuImg(...report), has = await disk86(...report);
      expect({ ...has, stderr: has.stderr !== "" }).toEqual({ ...wants, stderr: wants.stderr !== "" });
    }
  });
});
