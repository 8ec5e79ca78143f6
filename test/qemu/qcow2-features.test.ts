import { readFileSync, renameSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { formatExtensions, formatFeatureNames, type Extension } from "../../disk/formats/qcow2/extensions.ts";
import { expectBytes } from "../support/bytes.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { disk86 } from "../support/cli.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB;
const folder = tempFolder();

/** Changes bytes of the file itself. */
function patch(image: QemuImage, at: number, bytes: Uint8Array | number[]): void {
  const file = readFileSync(image.path);
  file.set(bytes, at);
  writeFileSync(image.path, file);
}

const header = (image: QemuImage, from = 0, to = 4096): Uint8Array => new Uint8Array(readFileSync(image.path)).slice(from, to);

/** A small image of version 3 with some data. */
function plain(options = ""): QemuImage {
  const image = new QemuImage(folder);
  image.create("1M", options);
  image.io("write -q -P 17 0 100k", "write -q -P 18 700k 5k");
  return image;
}

async function refusal(image: QemuImage, readOnly: boolean): Promise<DiskError> {
  try {
    await (await image.open({ readOnly })).close();
  } catch (error) {
    if (error instanceof DiskError) return error;
    throw error;
  }
  throw new Error("it was opened");
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("qcow2", () => {
  describe("what we cannot do is refused by its name", () => {
    test("an unknown incompatible bit, by the name that the image's own table gives it, or its number", async () => {
      const image = plain(), names: Extension = { type: 0x6803f857, data: formatFeatureNames([[0, 40, "time travel"]]) };
      patch(image, 112, formatExtensions([names]));
      patch(image, 72, [0, 0, 3, 0, 0, 0, 0, 0]);
      for (const readOnly of [true, false]) {
        const error = await refusal(image, readOnly);
        expect(error.kind).toBe("unsupported");
        expect(error.message).toContain("time travel");
        expect(error.message).toContain("bit 41");
      }
    });

    test("writing to an image marked corrupt; reading it is fine", async () => {
      const image = plain(), before = image.contents();
      patch(image, 79, [2]);
      expect((await refusal(image, false)).kind).toBe("corrupt");
      expectBytes(await image.bytes(), before);
    });
  });

  test("a dirty image is readable as it is; opened for writing it is repaired first", async () => {
    const image = plain("lazy_refcounts=on"), before = image.contents();
    patch(image, 79, [1]);
    expectBytes(await image.bytes(), before);
    expect(header(image)[79]).toBe(1);
    const disk = await image.open();
    await disk.close();
    expect(header(image)[79]).toBe(0);
    image.expectSound(before);
  });

  seeded("refcounts that QEMU delayed, and left so when it died, are right again once we have it open", async (random) => {
    for (const extra of ["", ",extended_l2=on", ",cluster_size=4k,refcount_bits=1"]) {
      const image = new QemuImage(folder);
      image.create("2M", `lazy_refcounts=on${extra}`);
      image.scribble(random, 10, 2 * MIB);
      // qemu-io ends without closing the image.
      tryTool("qemu-io", ["-f", "qcow2", "-c", "write -q -P 7 100k 300k", "-c", "write -q -P 8 1500k 70k", "-c", "flush", "-c", "abort", image.path]);
      const marks = header(image)[79] ?? 0;
      expect(marks & 1).toBe(1);
      expect(tryTool("qemu-img", ["check", "-f", "qcow2", image.path]).status).not.toBe(0);
      const readOnly = await image.bytes();
      const disk = await image.open(), model = await scribbled(random, disk, readOnly, 10);
      await disk.close();
      expect([header(image)[79], header(image)[87]]).toEqual([marks - 1, 1]);
      image.expectSound(model);
      expect(readOnly.subarray(100 * KIB, 400 * KIB).every((byte) => byte === 7)).toBe(true);
    }
  });

  test("a subcluster's write copies and allocates no more than it", async () => {
    const image = new QemuImage(folder);
    writeFileSync(join(folder, "base.raw"), new Uint8Array(MIB).fill(0x33));
    image.create("1M", "extended_l2=on", ["-b", "base.raw", "-F", "raw"]);
    const disk = await image.open();
    await disk.write(70_000, new Uint8Array(100).fill(1));
    await disk.write(80_000, new Uint8Array(5000).fill(2));
    await disk.zero(100_000, 10_000);
    await disk.close();
    const wanted = new Uint8Array(MIB).fill(0x33).fill(1, 70_000, 70_100).fill(2, 80_000, 85_000).fill(0, 100_000, 110_000);
    image.expectSound(wanted);
    const own = (JSON.parse(runTool("qemu-img", ["map", "--output=json", image.path])) as { start: number; length: number; depth: number; zero: boolean }[]).filter(({ depth }) => depth === 0);
    expect(own.map(({ start, length, zero }) => [start, length, zero])).toEqual([[69_632, 2048, false], [79_872, 6144, false], [98_304, 2048, false], [100_352, 8192, true], [108_544, 2048, false]]);
    expect(await image.bytes()).toEqual(wanted);
  });

  describe("an external data file", () => {
    test("that is raw is the disk by itself, and no longer than it; its autoclear bit stays, and a backing file is refused", async () => {
      const image = new QemuImage(folder), size = MIB + 512;
      // QEMU would round its length up to clusters.
      expect(await disk86("create", "-q", "-f", "qcow2", "-o", `data_file=${image.dataPath},data_file_raw=on`, image.path, String(size))).toMatchObject({ status: 0 });
      const disk = await image.open(), model = new Uint8Array(size);
      await disk.write(1000, new Uint8Array(100_000).fill(7));
      await disk.discard(0, 64 * KIB);
      await disk.zero(80_000, 3000);
      await disk.write(size - 100, new Uint8Array(100).fill(9));
      await disk.discard(size - 512, 512);
      await disk.write(size - 10, new Uint8Array(10).fill(8));
      await disk.read(0, model);
      const [top] = disk.chain;
      await expect((async () => { await run(top.setBacking?.({ file: "base", format: "raw" }) ?? (function* none() {})()); })()).rejects.toThrow(/Backing file and data-file-raw/);
      await disk.close();
      expectBytes(new Uint8Array(readFileSync(image.dataPath)), model, "the data file alone");
      expect(model.subarray(64 * KIB, 80_000).every((byte) => byte === 7) && model.subarray(80_000, 83_000).every((byte) => byte === 0)).toBe(true);
      expect(header(image)[95]).toBe(2);
      image.expectSound(model);
    });

    test("that is gone or cut off is an error that names it; info and check do not need it", async () => {
      const image = new QemuImage(folder);
      image.create("1M", "data_file=@");
      image.io("write -q -P 1 0 64k", "write -q -P 2 640k 64k");
      truncateSync(image.dataPath, 100 * KIB);
      const disk = await image.open({ readOnly: true }), bytes = new Uint8Array(512);
      await disk.read(0, bytes);
      expect(bytes[0]).toBe(1);
      expect(() => disk.read(640 * KIB, bytes)).toThrow(/truncated.*0xa0000/);
      await disk.close();
      renameSync(image.dataPath, `${image.dataPath}.away`);
      const { kind, message } = await refusal(image, true);
      expect([kind, message.includes(image.dataPath)]).toEqual(["not-found", true]);
      for (const verb of ["info", "check"]) expect(await disk86(verb, image.path)).toMatchObject({ status: 0, stderr: "" });
    });

    test("that is the image itself, or at another place than its clusters, is corrupt", async () => {
      const image = new QemuImage(folder);
      image.create("1M", "data_file=@,data_file_raw=on");
      const bytes = readFileSync(image.path), l2 = Number(bytes.readBigUInt64BE(Number(bytes.readBigUInt64BE(40))) & 0x00ff_ffff_ffff_fe00n);
      patch(image, l2 + 8, [0x80, 0, 0, 0, 0, 5, 0, 0]);
      const disk = await image.open({ readOnly: true });
      expect(() => disk.read(64 * KIB, new Uint8Array(1))).toThrow(/not its own place/);
      await disk.close();
      const gate = { open: () => FileStorage.open(image.path) };
      await expect(image.open({ readOnly: true, gate })).rejects.toThrow(/names itself/);
    });
  });

  test("autoclear bits fall when the image is opened for writing, not when it is read", async () => {
    const image = plain(), before = image.contents();
    patch(image, 88, [0x80, 0, 0, 0, 0, 0, 0, 0x10]);
    expectBytes(await image.bytes(), before);
    expect([...header(image, 88, 96)]).toEqual([0x80, 0, 0, 0, 0, 0, 0, 0x10]);
    await (await image.open()).close();
    expect([...header(image, 88, 96)]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    image.expectSound(before);
  });

  test("unknown header extensions and bytes survive our writing, table growth and resize, byte for byte", async () => {
    const image = plain("cluster_size=4k,refcount_bits=64");
    const unknown: Extension = { type: 0x12345678, data: Uint8Array.from({ length: 13 }, (_, i) => i + 1) };
    patch(image, 112, formatExtensions([unknown]));
    patch(image, 3000, [1, 2, 3, 4, 5]);
    const before = header(image, 72, 4096), disk = await image.open();
    await disk.truncate(64 * MIB);
    await disk.write(20 * MIB, new Uint8Array(3 * MIB).fill(9));
    await disk.close();
    expectBytes(header(image, 72, 4096), before);
    image.expectSound();
  });

  test("a header of 104 bytes, without the compression type, is as good as one of 112", async () => {
    const image = plain(), before = image.contents(), extensions = header(image, 112, 1000);
    patch(image, 104, extensions);
    patch(image, 100, [0, 0, 0, 104]);
    expectBytes(await image.bytes(), before);
    const disk = await image.open();
    await disk.write(5000, new Uint8Array(100).fill(7));
    await disk.close();
    before.fill(7, 5000, 5100);
    image.expectSound(before);
  });

  test("a version 2 header ends at byte 72, whatever stands behind it", async () => {
    const image = plain("compat=0.10"), before = image.contents();
    patch(image, 80, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    expectBytes(await image.bytes(), before);
  });

  test("a size that is no multiple of 512 is cut", async () => {
    const image = plain();
    patch(image, 24, [0, 0, 0, 0, 0, 0x0f, 0xff, 0xff]);
    expect((await image.bytes()).length).toBe(MIB - 512);
  });

  test("zero clusters with and without space read as zeros, hide the base, and are written in place or anew", async () => {
    const image = new QemuImage(folder);
    writeFileSync(join(folder, "base.raw"), new Uint8Array(MIB).fill(0x33));
    image.create("1M", "cluster_size=16k", ["-b", "base.raw", "-F", "raw"]);
    image.io("write -q -P 1 0 64k", "write -q -z 0 32k", "write -q -z -u 32k 32k", "write -q -z 128k 16k");
    const model = image.contents();
    expectBytes(await image.bytes(), model);
    const size = readFileSync(image.path).length, disk = await image.open();
    await disk.write(100, new Uint8Array(50).fill(5));
    model.fill(5, 100, 150);
    await disk.flush();
    expect(readFileSync(image.path).length).toBe(size);
    await disk.write(40 * KIB, new Uint8Array(50).fill(6));
    model.fill(6, 40 * KIB, 40 * KIB + 50);
    await disk.close();
    image.expectSound(model);
  });

  test("reading beyond the end of a sparse 1 TiB disk, and writing at random places of it", async () => {
    const image = new QemuImage(folder), disk0 = 1024 * GIB;
    image.create(disk0, "");
    const disk = await image.open(), places = [0, 3 * GIB + 12345, 4 * GIB - 100, 511 * GIB, disk0 - 777];
    for (const [i, at] of places.entries()) await disk.write(at, new Uint8Array(777).fill(i + 1));
    await disk.zero(511 * GIB + 100, 100);
    await disk.close();
    image.expectSound();
    for (const [i, at] of places.entries()) image.io(`read -q -P ${i + 1} ${at} ${at === 511 * GIB ? 100 : 777}`);
    image.io(`read -q -P 0 ${511 * GIB + 100} 100`, `write -q -P 99 ${700 * GIB} 5000`);
    const again = await image.open({ readOnly: true }), bytes = new Uint8Array(5000);
    await again.read(700 * GIB, bytes);
    expect(bytes.every((byte) => byte === 99)).toBe(true);
    await again.close();
  });

  test("data beyond 4 GiB of the file itself", async () => {
    const image = new QemuImage(folder);
    image.create(6 * GIB, "preallocation=metadata");
    const disk = await image.open(), bytes = new Uint8Array(100_000).map((_, i) => i % 251);
    await disk.write(5 * GIB + 1234, bytes);
    await disk.close();
    image.expectSound();
    expect(runTool("qemu-img", ["map", "--output=json", image.path])).toMatch(/"offset": [5-9]\d{9}/);
    const again = await image.open({ readOnly: true }), back = new Uint8Array(100_000);
    await again.read(5 * GIB + 1234, back);
    expectBytes(back, bytes);
    await again.close();
    image.io(`read -q -P 0 ${5 * GIB} 1234`);
  });

  seeded("tables that grow: L1, refcount blocks and the refcount table, by many small clusters", async (random) => {
    const image = new QemuImage(folder);
    image.create("256k", "cluster_size=512,refcount_bits=64");
    image.scribble(random, 10, 256 * KIB);
    const before = image.contents(), disk = await image.open({ tableCache: 4096 });
    await disk.truncate(12 * MIB);
    const model = new Uint8Array(12 * MIB);
    model.set(before);
    for (let at = 0; at < 12 * MIB; at += MIB) {
      const bytes = random.bytes(MIB - 3000);
      await disk.write(at + 1000, bytes);
      model.set(bytes, at + 1000);
    }
    const after = await scribbled(random, disk, model, 10);
    await disk.close();
    image.expectSound(after);
    image.scribble(random, 10, 12 * MIB);
    expectBytes(await image.bytes(), image.contents());
    image.expectSound();
  });

  test("refcounts of one bit count what was dropped and taken again", async () => {
    const image = plain("refcount_bits=1");
    const model = image.contents(), disk = await image.open();
    await disk.discard(0, 64 * KIB);
    await disk.write(0, new Uint8Array(3 * 64 * KIB).fill(3));
    model.fill(3, 0, 3 * 64 * KIB);
    await disk.close();
    image.expectSound(model);
    expectBytes(await image.bytes(), model);
  });
});
