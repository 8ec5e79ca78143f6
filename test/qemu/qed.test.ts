import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { checkQed } from "../../disk/formats/qed/check.ts";
import { qed } from "../../disk/formats/qed/index.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

/**
 * Options for `qemu-img create`; `size` in bytes. QEMU 7.2 makes images with tables of one cluster, but
 * cannot open them; and its arithmetic overflows where tables could reach 2^64 bytes: from clusters of 8 MiB on. */
const ROWS: readonly (readonly [options: string, size: number])[] = [
  ["", 3 * MIB], ["table_size=2", 3 * MIB], ["table_size=16", 3 * MIB + 512], ["cluster_size=4k,table_size=2", 17 * MIB + 512], ["cluster_size=4k,table_size=16", 3 * MIB],
  ["cluster_size=1M,table_size=2", 9 * MIB], ["cluster_size=4M,table_size=2", 20 * MIB], ["", 512], ["", 65 * KIB],
];

/** QEMU and we take turns on one image; each must find what the other left, and QEMU's check nothing to complain about. */
async function takeTurns(random: Random, image: QemuImage, size: number): Promise<void> {
  for (let turn = 0; turn < 2; turn++) {
    image.scribble(random, STEPS, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    const after = await scribbled(random, disk, before, STEPS);
    await disk.close();
    image.expectSound(after);
    expect(await checked(image)).toEqual(theirs(image));
  }
}

/** Our check's counts, under QEMU's names. */
async function checked(image: QemuImage): Promise<object> {
  const result = await run(checkQed(new MemoryStorage(new Uint8Array(readFileSync(image.path)))));
  expect(result.leaks + result.corruptions).toBe(0);
  return { total: result.totalClusters, allocated: result.allocatedClusters, fragmented: result.fragmentedClusters };
}

function theirs(image: QemuImage): object {
  const result = JSON.parse(runTool("qemu-img", ["check", "-f", "qed", "--output=json", image.path])) as Record<string, number>;
  return { total: result["total-clusters"] ?? 0, allocated: result["allocated-clusters"] ?? 0, fragmented: result["fragmented-clusters"] ?? 0 };
}

let count = 0;
const newImage = (): QemuImage => new QemuImage(folder, `qed${++count}.qed`, "qed");

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one qed image", () => {
  describe.each(ROWS)("%s, %i bytes", (options, size) => {
    seeded("random writes, zeroes and discards by both, and growth", async (random) => {
      const image = newImage();
      image.create(size, options);
      await takeTurns(random, image, size);
      const before = image.contents(), disk = await image.open();
      await disk.truncate(size * 2 + 512);
      const grown = new Uint8Array(size * 2 + 512);
      grown.set(before);
      const model = await scribbled(random, disk, grown, 10);
      await disk.truncate(size);
      await disk.truncate(size + 512);
      await disk.close();
      const end = new Uint8Array(size + 512);
      end.set(model.subarray(0, size));
      image.expectSound(end);
      runTool("qemu-img", ["resize", "-q", "-f", "qed", image.path, String(size * 3)]);
      expectBytes(await image.bytes(), image.contents(), "after QEMU's resize");
    });
  });

  for (const [how, baseSize] of [["shorter", MIB + 300 * KIB + 512], ["longer", 4 * MIB]] as const) {
    seeded(`an overlay above a ${how} raw base, which is not probed`, async (random) => {
      const image = newImage(), base = random.bytes(baseSize);
      base.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
      writeFileSync(join(folder, "base.raw"), base);
      image.create(2 * MIB + 512, "cluster_size=16k", ["-b", "base.raw", "-F", "raw"]);
      await takeTurns(random, image, 2 * MIB + 512);
    });
  }

  seeded("an overlay above qed, which is probed", async (random) => {
    const base = newImage(), image = newImage();
    base.create(MIB, "");
    base.scribble(random, 10, MIB);
    image.create(2 * MIB, "", ["-b", base.path.slice(folder.length + 1), "-F", "qed"]);
    await takeTurns(random, image, 2 * MIB);
  });

  seeded("an image that QEMU did not close in order is repaired when it is opened for writing", async (random) => {
    const image = newImage();
    image.create(2 * MIB, "");
    image.scribble(random, 10, 2 * MIB);
    const before = image.contents(), bytes = readFileSync(image.path);
    bytes.writeUInt8(bytes.readUInt8(16) | 2, 16);
    writeFileSync(image.path, Buffer.concat([bytes, random.bytes(3 * 65536 + 77)]));
    expectBytes(await image.bytes(), before, "read-only");
    expect((await run(qed.info(new MemoryStorage(new Uint8Array(readFileSync(image.path)))))).dirty).toBe(true);
    const disk = await image.open();
    await disk.close();
    image.expectSound(before);
    expect((await run(qed.info(new MemoryStorage(new Uint8Array(readFileSync(image.path)))))).dirty).toBe(false);
  });
});

describe.skipIf(!requireTool("qemu-img"))("the command line, as qemu-img", () => {
  const path = join(folder, "new.qed");
  test.each([
    ["64k", ""], ["1G", "cluster_size=4k"], ["3M", "table_size=2,cluster_size=4M"], ["1000", ""], ["1M", "table_size=3"], ["1M", "table_size=32"], ["1M", "cluster_size=2k"], ["1M", "cluster_size=128M"],
    ["100G", "cluster_size=4k,table_size=2"], ["0", ""],
  ])("create %s -o '%s', info, check", async (size, options) => {
    const args = ["create", "-f", "qed", ...(options === "" ? [] : ["-o", options]), path, size];
    const wanted = qemuImg(...args), reports = [["info", "--output=json", "-f", "qed", path], ["info", "-f", "qed", path], ["check", "-f", "qed", path], ["check", "-f", "qed", "--output=json", path]];
    const file = wanted.status === 0 ? readFileSync(path) : undefined;
    const ours = await disk86(...args);
    expect({ status: ours.status, failed: ours.stderr !== "" }).toEqual({ status: wanted.status, failed: wanted.stderr !== "" });
    if (file === undefined) return;
    expect(ours.stdout).toBe(wanted.stdout);
    expect(Buffer.compare(readFileSync(path).subarray(0, 4096), file.subarray(0, 4096))).toBe(0);
    for (const report of reports) expect(await disk86(...report)).toEqual(qemuImg(...report));
  });
});
