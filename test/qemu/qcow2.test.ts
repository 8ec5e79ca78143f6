import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { expectBytes } from "../support/bytes.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 30;

/** Options for `qemu-img create`; `size` in bytes. */
const ROWS: readonly (readonly [options: string, size: number])[] = [
  ["", 3 * MIB], ["compat=0.10", 3 * MIB], ["compat=1.1,lazy_refcounts=on", 3 * MIB],
  ["cluster_size=512", MIB], ["cluster_size=4k", 2 * MIB], ["cluster_size=2M", 9 * MIB], ["compat=0.10,cluster_size=512", MIB],
  ["refcount_bits=1", 2 * MIB], ["refcount_bits=2", 2 * MIB], ["refcount_bits=4,cluster_size=4k", 2 * MIB], ["refcount_bits=8", 2 * MIB],
  ["refcount_bits=32,cluster_size=1k", MIB], ["refcount_bits=64,cluster_size=512", MIB],
  ["compression_type=zstd", 2 * MIB],
  ["extended_l2=on", 3 * MIB], ["extended_l2=on,cluster_size=16k", 2 * MIB], ["extended_l2=on,cluster_size=2M", 9 * MIB], ["extended_l2=on,cluster_size=16k,refcount_bits=1", 1000 * 1000],
  ["extended_l2=on,preallocation=metadata", 2 * MIB],
  ["data_file=@", 3 * MIB], ["data_file=@,cluster_size=4k", 2 * MIB], ["data_file=@,extended_l2=on,cluster_size=16k", 1000 * 1000], ["data_file=@,lazy_refcounts=on,preallocation=metadata", 2 * MIB],
  ["data_file=@,data_file_raw=on", 3 * MIB], ["data_file=@,data_file_raw=on,extended_l2=on", 1000 * 1000],
  ["preallocation=metadata", 2 * MIB], ["preallocation=falloc", 2 * MIB], ["preallocation=full,cluster_size=4k", 2 * MIB], ["preallocation=metadata,compat=0.10", 2 * MIB],
  ["cluster_size=64k", 1000 * 1000], ["cluster_size=4k", 12345], ["cluster_size=64k", 512], ["", 65537],
];

/** QEMU and we take turns on one image; each must find what the other left, and QEMU's check nothing to complain about. */
async function takeTurns(random: Random, image: QemuImage, size: number, turns = 2): Promise<void> {
  for (let turn = 0; turn < turns; turn++) {
    image.scribble(random, STEPS, size);
    if (!image.info().includes("data-file")) image.packBlocks(random, 2, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    expect(disk.size).toBe(before.length);
    const after = await scribbled(random, disk, before, STEPS);
    await disk.close();
    image.expectSound(after);
    if (image.info().includes('"data-file-raw": true')) expectBytes(new Uint8Array(readFileSync(image.dataPath)).subarray(0, after.length), after, "the raw data file alone");
  }
  image.scribble(random, STEPS, size);
  expectBytes(await image.bytes(), image.contents(), "what we read in the end");
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one image", () => {
  describe.each(ROWS)("%s, %i bytes", (options, size) => {
    seeded("random writes, zeroes and discards by both", async (random) => {
      const image = new QemuImage(folder);
      image.create(size, options);
      await takeTurns(random, image, Math.ceil(size / 512) * 512);
    });

    seeded("and a resize by each", async (random) => {
      const image = new QemuImage(folder);
      image.create(size, options);
      const bytes = Math.ceil(size / 512) * 512;
      image.scribble(random, 10, bytes);
      const before = image.contents(), disk = await image.open();
      await disk.truncate(bytes * 2 + 512);
      await disk.truncate(bytes + 1024);
      const model = await scribbled(random, disk, before, 10);
      await disk.close();
      image.expectSound(model);
      runTool("qemu-img", ["resize", "-q", "-f", "qcow2", image.path, String(bytes * 3)]);
      runTool("qemu-img", ["resize", "-q", "--shrink", "-f", "qcow2", image.path, String(bytes)]);
      expectBytes(await image.bytes(), image.contents(), "after QEMU's resize");
    });
  });

  for (const options of ["compat=0.10,cluster_size=16k", "compat=1.1,cluster_size=16k", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=256k,preallocation=metadata", "data_file=@,cluster_size=16k"]) {
    for (const [how, baseSize] of [["shorter", MIB + 300 * KIB + 512], ["longer", 4 * MIB]] as const) {
      seeded(`an overlay, ${options}, above a ${how} raw base, grown past it by us`, async (random) => {
        const size = 2 * MIB + 512, image = new QemuImage(folder);
        writeFileSync(join(folder, "base.raw"), random.bytes(baseSize));
        image.create(size, options, ["-b", "base.raw", "-F", "raw"]);
        await takeTurns(random, image, size);
        const before = image.contents(), disk = await image.open();
        await disk.truncate(3 * MIB + 512);
        const grown = new Uint8Array(3 * MIB + 512);
        grown.set(before);
        const model = await scribbled(random, disk, grown, 10);
        await disk.close();
        image.expectSound(model);
      });
    }
  }

  seeded("a chain of four, of different cluster sizes", async (random) => {
    const names = ["c0.raw", "c1.qcow2", "c2.qcow2", "c3.qcow2"];
    writeFileSync(join(folder, "c0.raw"), random.bytes(MIB));
    for (const [i, cluster] of [64 * KIB, 512, 4 * KIB].entries()) {
      const image = new QemuImage(folder, names[i + 1]), size = MIB + i * 70_000 - (i * 70_000) % 512;
      image.create(size, `cluster_size=${cluster}`, ["-b", names[i] ?? "", "-F", i === 0 ? "raw" : "qcow2"]);
      image.scribble(random, 12, size, 100_000);
    }
    const image = new QemuImage(folder, "c3.qcow2");
    await takeTurns(random, image, image.contents().length);
  });

  for (const type of ["zlib", "zstd"]) {
    for (const cluster of ["512", "4k", "64k", "2M", "64k,extended_l2=on"]) {
      seeded(`compressed by qemu-img with ${type}, clusters of ${cluster}`, async (random) => {
        const image = new QemuImage(folder), plain = new Uint8Array(cluster === "2M" ? 5 * MIB : MIB + 512);
        for (let at = 0; at < plain.length; at += 40_000) {
          const part = random.chance(0.3) ? random.bytes(40_000) : random.chance(0.2) ? new Uint8Array(40_000) : random.text(40_000);
          plain.set(part.subarray(0, plain.length - at), at);
        }
        writeFileSync(join(folder, "plain.raw"), plain);
        runTool("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", "-o", `cluster_size=${cluster},compression_type=${type}`, join(folder, "plain.raw"), image.path]);
        expectBytes(await image.bytes(), plain, "what was compressed");
        // Cut off amid what may be compressed: it must not come back.
        const disk = await image.open(), size = plain.length - 100 * KIB;
        await disk.truncate(size);
        await disk.truncate(plain.length);
        plain.fill(0, size);
        await disk.zero(90_000, 300_000);
        plain.fill(0, 90_000, 390_000);
        await disk.close();
        image.expectSound(plain);
        await takeTurns(random, image, plain.length, 1);
      });
    }
  }

  for (const options of ["cluster_size=4k", "compat=0.10,cluster_size=512", "refcount_bits=4", "extended_l2=on,cluster_size=16k"]) {
    seeded(`what we do leaves every internal snapshot as it was: ${options}`, async (random) => {
      const image = new QemuImage(folder), size = MIB + 512;
      image.create(size, options);
      const kept = new Map<string, Uint8Array>();
      for (const name of ["one", "two", "three"]) {
        image.scribble(random, 10, size);
        runTool("qemu-img", ["snapshot", "-c", name, image.path]);
        kept.set(name, image.contents());
        const before = image.contents(), disk = await image.open();
        const model = await scribbled(random, disk, before, STEPS);
        await disk.close();
        image.expectSound(model);
        for (const [snapshot, bytes] of kept) expectBytes(image.contents(snapshot).subarray(0, bytes.length), bytes, `snapshot ${snapshot}`);
      }
      runTool("qemu-img", ["snapshot", "-d", "two", image.path]);
      await takeTurns(random, image, size, 1);
      runTool("qemu-img", ["snapshot", "-a", "one", image.path]);
      expectBytes(await image.bytes(), kept.get("one") ?? new Uint8Array(0), "after going back");
    });
  }
});
