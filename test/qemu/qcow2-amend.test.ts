import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectBytes } from "../support/bytes.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { ourCheck } from "../support/qcow2.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const MIB = 2 ** 20;
const folder = tempFolder(), home = process.cwd();
const qemu = (...args: string[]): string => runTool("qemu-img", args);
const first = (text: string): string => text.replace(/^(qemu-img|disk86): /gm, "").split("\n")[0] ?? "";

/** What `info` tells, without what depends on where things stand. */
const info = (image: QemuImage): string => qemu("info", image.path).replace(/disk size:.*\n/, "").replace(/image:.*\n/, "");

async function sound(image: QemuImage, contents: Uint8Array): Promise<void> {
  image.expectSound(contents);
  expect(await ourCheck(image.path)).toMatchObject({ leaks: 0, corruptions: 0, checkErrors: 0 });
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("amend", () => {
  beforeAll(() => process.chdir(folder));
  afterAll(() => process.chdir(home));

  // Each line is what happens to one image: amended by QEMU, and by us.
  test.each([
    ["", ["compat=0.10", "compat=v3", "compat=foo", "compat=", "lazy_refcounts=on", "compat=v2", "lazy_refcounts=on", "compat=v3,lazy_refcounts=on", "lazy_refcounts=off", "lazy_refcounts=maybe"]],
    ["cluster_size=4k", ["refcount_bits=1", "compat=v2", "refcount_bits=7", "refcount_bits=128", "refcount_bits=0", "refcount_bits=64", "refcount_bits=16,compat=0.10", "refcount_bits=8", "compat=0.10,refcount_bits=8", "refcount_bits=8,compat=1.1", "refcount_bits=x"]],
    ["", ["size=20M", "size=5M", "size=1000", "size=8M,compat=0.10", "size=9M,compat=1.1,refcount_bits=32", "size=x"]],
    ["", ["backing_file=x", "backing_fmt=raw", "cluster_size=4k", "cluster_size=64k", "preallocation=off", "foo=1", "compression_type=zstd", "data_file=x", "data_file_raw=on", "data_file_raw=off", "encryption=on", "encrypt.format=luks", "extended_l2=on", "compat=0.10,lazy_refcounts=on"]],
    ["extended_l2=on", ["compat=0.10", "refcount_bits=64"]],
    ["data_file=@.data", ["compat=0.10", "data_file_raw=on", "refcount_bits=32", "lazy_refcounts=on", "data_file=other.data"]],
    ["data_file=@.data,data_file_raw=on", ["data_file_raw=on", "refcount_bits=8", "data_file_raw=off"]],
    ["cluster_size=512", ["refcount_bits=64", "refcount_bits=1", "refcount_bits=16", "compat=0.10", "compat=1.1"]],
    ["compat=0.10,cluster_size=16k", ["compat=1.1", "refcount_bits=2", "refcount_bits=32"]],
  ] as const)("-o of an image made with '%s'", async (options, lines) => {
    const told: unknown[] = [];
    const image = new QemuImage(folder, "amended.qcow2");
    for (const run of [qemuImg, disk86]) {
      image.create("10M", options.replace("@", image.path));
      if (!options.includes("data_file")) image.io("write -q -P 1 100k 2M", "write -q -z 1M 100k", "write -q -z -u 9M 64k");
      const results: unknown[] = [];
      for (const line of lines) {
        const { status, stdout, stderr } = await run("amend", "-o", line, image.path);
        results.push([line, status, stdout, first(stderr)], status === 0 || !line.includes("data_file") ? info(image) : "");
        if (!options.includes("data_file")) image.expectSound();
      }
      told.push(results);
    }
    expect(told[1]).toEqual(told[0]);
  });

  for (const [backed, options] of [[false, ""], [true, ""], [true, "cluster_size=512"], [false, "cluster_size=4k"]] as const) {
    seeded(`every way between versions and widths keeps the disk and its snapshots${backed ? ", above a backing file" : ""}, ${options}`, async (random) => {
      const image = new QemuImage(folder);
      writeFileSync(join(folder, "base.raw"), random.bytes(MIB));
      image.create("2M", options, backed ? ["-b", "base.raw", "-F", "raw"] : []);
      const names = ["one", "two", "three"], contents = new Map<string, Uint8Array>();
      for (const name of names) {
        image.scribble(random, 5, 2 * MIB);
        qemu("snapshot", "-c", name, image.path);
        contents.set(name, image.contents());
      }
      image.scribble(random, 3, 2 * MIB);
      let model = image.contents();
      for (const change of ["refcount_bits=64", "refcount_bits=8", "refcount_bits=16,lazy_refcounts=on", "compat=0.10", "compat=1.1", "refcount_bits=4", "refcount_bits=16,compat=0.10"].slice(0, 4 + random.int(4))) {
        expect(await disk86("amend", "-q", "-o", change, image.path)).toEqual({ status: 0, stdout: "", stderr: "" });
        await sound(image, model);
        for (const [name, bytes] of contents) expectBytes(await image.bytes({ snapshot: { name } }), bytes);
        for (const [name, bytes] of contents) expectBytes(image.contents(name), bytes);
      }
      const disk = await image.open();
      model = await scribbled(random, disk, model, 5);
      await disk.close();
      await sound(image, model);
      image.scribble(random, 3, 2 * MIB);
      image.expectSound();
    }, 60_000);
  }

  test("what an old version cannot say is refused", async () => {
    const image = new QemuImage(folder);
    image.create("1M", "");
    qemu("snapshot", "-c", "one", image.path);
    qemu("resize", "-q", image.path, "2M");
    const before = readFileSync(image.path), { status, stderr } = await disk86("amend", "-o", "compat=0.10", image.path);
    expect([status, stderr]).toEqual([1, "disk86: Internal snapshots prevent downgrade of image\n"]);
    const zstd = new QemuImage(folder);
    zstd.create("1M", "compression_type=zstd");
    // qemu-img 7.2 forgets here how the clusters are compressed.
    expect((await disk86("amend", "-o", "compat=0.10", zstd.path)).stderr).toContain("Cannot downgrade an image with incompatible features 0x8 set");
    expect(readFileSync(image.path).equals(before)).toBe(true);
  });

  test("a refcount that the new width cannot hold is refused, with its place", async () => {
    const image = new QemuImage(folder), copy = new QemuImage(folder);
    image.create("1M", "refcount_bits=8");
    image.io("write -q 0 100k");
    for (let i = 0; i < 5; i++) qemu("snapshot", "-c", `s${i}`, image.path);
    copyFileSync(image.path, copy.path);
    const wanted = qemuImg("amend", "-o", "refcount_bits=2", copy.path), ours = await disk86("amend", "-o", "refcount_bits=2", image.path);
    expect(ours.status).toBe(wanted.status);
    expect(ours.stderr).toMatch(/Cannot decrease refcount entry width to 2 bits: Cluster at offset 0x\w+ has a refcount of 6/);
    image.expectSound();
  });

  test("bitmaps are no version 2's: their space is given back", async () => {
    const image = new QemuImage(folder);
    image.create("1M", "");
    qemu("bitmap", "--add", image.path, "daily");
    image.io("write -q 0 100k");
    const contents = image.contents();
    expect((await disk86("amend", "-o", "compat=0.10", image.path)).status).toBe(0);
    expect(qemu("info", image.path)).not.toContain("bitmaps");
    await sound(image, contents);
  });

  test("an image with errors is left alone", async () => {
    const image = new QemuImage(folder);
    image.create("1M", "");
    image.io("write -q 0 100k");
    const bytes = readFileSync(image.path);
    bytes.writeUInt16BE(0, 2 * 65536 + 2 * 5);
    writeFileSync(image.path, bytes);
    for (const change of ["refcount_bits=8", "compat=0.10"]) expect((await disk86("amend", "-o", change, image.path)).stderr).toMatch(/has errors: repair it with check -r all first/);
    expect(readFileSync(image.path).equals(bytes)).toBe(true);
  });

  test.each(["amend plain", "amend -o compat=1.1", "amend -o compat=1.1 a b", "amend -o compat=1.1 nothing-here", "amend -f raw -o help", "amend -f qcow2 -o help", "amend -o help plain", "amend -q -t foo -o compat=1.1 plain", "amend -t none --force -o compat=1.1 plain", "amend -p -o lazy_refcounts=on plain", "amend -f raw -o size=1M plain", "amend --frob plain"])("arguments: %s", async (line) => {
    qemu("create", "-q", "-f", "qcow2", "plain", "1M");
    const words = line.split(" "), wanted = qemuImg(...words);
    qemu("create", "-q", "-f", "qcow2", "plain", "1M");
    const ours = await disk86(...words);
    expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
  });
});
