import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { expectBytes } from "../support/bytes.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";
import { type Build, buildCowd, buildHosted, buildSeSparse, buildStream, descriptorText, type Grain } from "../support/vmdk-build.ts";
import { brokenVmdk, inStep } from "../support/vmdk-inspect.ts";

const KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB, SECTOR = 512;
const folder = tempFolder(), home = process.cwd();
const STEPS = process.env["LONG"] ? 150 : 15;

const WRITABLE = ["", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat", "zeroed_grain=on", "subformat=twoGbMaxExtentSparse,zeroed_grain=on"];

/** QEMU and we take turns on one image; each must find what the other left, and QEMU's check nothing to complain about. */
async function takeTurns(random: Random, image: QemuImage, size: number): Promise<void> {
  for (let turn = 0; turn < 2; turn++) {
    image.scribble(random, STEPS, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    expect(disk.size).toBe(before.length);
    const after = await scribbled(random, disk, before, STEPS);
    await disk.close();
    image.expectSound(after);
  }
}

async function createOurs(image: QemuImage, size: number, options: string): Promise<void> {
  expect(await disk86("create", "-q", "-f", "vmdk", ...(options === "" ? [] : ["-o", options]), image.path, String(size))).toMatchObject({ status: 0, stderr: "" });
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one VMDK", () => {
  beforeAll(() => { process.chdir(folder); });
  afterAll(() => { process.chdir(home); });

  describe.each(WRITABLE)("%s", (options) => {
    describe.each([5 * MIB, 12_345, ...(options === "" || process.env["LONG"] ? [34 * MIB + 512] : [])])("%i bytes", (size) => {
      seeded("made by QEMU", async (random) => {
        const image = new QemuImage(folder, undefined, "vmdk");
        image.create(size, options);
        await takeTurns(random, image, Math.ceil(size / 512) * 512);
      });

      seeded("made by us", async (random) => {
        const image = new QemuImage(folder, undefined, "vmdk");
        await createOurs(image, size, options);
        image.expectSound(new Uint8Array(Math.ceil(size / 512) * 512));
        await takeTurns(random, image, Math.ceil(size / 512) * 512);
      });
    });
  });
});

const newImage = (name?: string): QemuImage => new QemuImage(folder, name, "vmdk");

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("VMDKs that QEMU and we read alike", () => {
  beforeAll(() => { process.chdir(folder); });
  afterAll(() => { process.chdir(home); });

  test.each(["subformat=streamOptimized", "subformat=streamOptimized,zeroed_grain=on"])("%s: QEMU's is read and written on, ours is read", async (options) => {
    const { withSeed } = await import("../support/random.ts");
    await withSeed(async (random) => {
      const size = 5 * MIB + 1536, raw = random.text(size), image = newImage();
      raw.fill(0, MIB, 2 * MIB);
      raw.set(random.bytes(200 * KIB), 3 * MIB);
      writeFileSync("stream.raw", raw);
      runTool("qemu-img", ["convert", "-f", "raw", "-O", "vmdk", "-o", options, "stream.raw", image.path]);
      expectBytes(await image.bytes(), raw, "what we read of QEMU's stream");
      const disk = await image.open(), after = await scribbled(random, disk, raw, STEPS);
      await disk.close();
      image.expectSound(after);
      expect(await disk86("convert", "-O", "vmdk", "-o", options, image.path, "ours.vmdk")).toMatchObject({ status: 0, stderr: "" });
      newImage("ours.vmdk").expectSound(after);
    });
  });

  /** The grains of a disk of 10 MiB, and what it holds. */
  function contents(random: Random, grain: number, zeros: boolean): { sectors: number; grain: number; grains: Map<number, Grain>; bytes: Uint8Array } {
    const sectors = 20_000, grains = new Map<number, Grain>(), bytes = new Uint8Array(sectors * SECTOR), count = Math.floor(sectors / grain);
    for (let i = 0; i < 40; i++) {
      const at = random.int(count), zero = zeros && random.chance(0.3), data = random.chance(0.5) ? random.text(grain * SECTOR) : random.bytes(grain * SECTOR);
      grains.set(at, zero ? "zero" : data);
      bytes.fill(0, at * grain * SECTOR, (at + 1) * grain * SECTOR);
      if (!zero) bytes.set(data, at * grain * SECTOR);
    }
    return { sectors, grain, grains, bytes };
  }

  const text = descriptorText("monolithicSparse", ['RW 20000 SPARSE "x.vmdk"']);
  test.each<[name: string, build: (build: Build) => Uint8Array, grain: number, more: Partial<Build>]>([
    ["version 3 with a footer", buildStream, 128, { version: 3, perTable: 512 }], ["a stream of small grains", buildStream, 8, { version: 1 }], ["a stream with grains of zeros", buildStream, 16, { version: 3, zeroGrain: true }],
    ["version 3, to be tracked", buildHosted, 128, { version: 3 }], ["version 2 with grains of zeros", buildHosted, 8, { version: 2, zeroGrain: true }],
    ["without a second directory", buildHosted, 16, { redundant: false }], ["without tables where there is nothing", buildHosted, 8, { sparseTables: true }], ["tables of 100 entries", buildHosted, 8, { perTable: 100 }], ["grains of three sectors", buildHosted, 3, {}],
  ])("%s", async (_, build, grain, more) => {
    const { withSeed } = await import("../support/random.ts");
    await withSeed(async (random) => {
      const made = contents(random, grain, more.zeroGrain === true), image = newImage();
      writeFileSync(image.path, build({ ...made, ...more, descriptor: text }));
      expectBytes(await image.bytes(), made.bytes, "what we read");
      expectBytes(image.contents(), made.bytes, "what QEMU reads");
    });
  });

  seeded("SESPARSE: a snapshot of ESXi's, on its parent", async (random) => {
    const base = contents(random, 8, false), made = contents(random, 8, true), wanted = base.bytes.slice();
    writeFileSync("se-flat.vmdk", base.bytes);
    writeFileSync("se.vmdk", descriptorText("vmfs", [`RW ${base.sectors} VMFS "se-flat.vmdk"`], { cid: "0a0b0c0d" }));
    writeFileSync("se-sesparse.vmdk", buildSeSparse(made));
    writeFileSync("se-1.vmdk", descriptorText("seSparse", [`RW ${made.sectors} SESPARSE "se-sesparse.vmdk"`], { parentCid: "0a0b0c0d", more: 'parentFileNameHint="se.vmdk"' }));
    for (const [index, data] of made.grains) wanted.set(data === "zero" ? new Uint8Array(8 * SECTOR) : data, index * 8 * SECTOR);
    const image = newImage("se-1.vmdk");
    expectBytes(await image.bytes({ tableCache: 1 }), wanted, "what we read");
    expectBytes(image.contents(), wanted, "what QEMU reads");
    await expect(image.open()).rejects.toThrow(/of type SESPARSE can only be read/);
    for (const report of [["info"], ["info", "--output=json"], ["map", "--output=json"], ["check"]]) expect(await disk86(...report, "se-1.vmdk")).toEqual(qemuImg(...report, "se-1.vmdk"));
  });

  seeded("VMFSSPARSE: a COWD behind a descriptor, and a parent below; QEMU reads what we wrote", async (random) => {
    const base = contents(random, 1, false), top = contents(random, 1, false);
    writeFileSync("esx-flat.vmdk", base.bytes);
    writeFileSync("esx.vmdk", descriptorText("vmfs", [`RW ${base.sectors} VMFS "esx-flat.vmdk"`], { cid: "0f0f0f0f" }));
    writeFileSync("esx-delta.vmdk", buildCowd(top));
    writeFileSync("esx-1.vmdk", descriptorText("vmfsSparse", [`RW ${top.sectors} VMFSSPARSE "esx-delta.vmdk"`], { parentCid: "0f0f0f0f", more: 'parentFileNameHint="esx.vmdk"' }));
    const image = newImage("esx-1.vmdk"), wanted = base.bytes.slice();
    for (const [index, data] of top.grains) if (data !== "zero") wanted.set(data, index * SECTOR);
    expectBytes(await image.bytes(), wanted, "what we read");
    expectBytes(image.contents(), wanted, "what QEMU reads");
    const disk = await image.open(), after = await scribbled(random, disk, wanted, STEPS, 20_000);
    await disk.close();
    expect(brokenVmdk(readFileSync("esx-delta.vmdk"))).toBeUndefined();
    image.expectSound(after);
  });
});

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("what ends up in the files", () => {
  beforeAll(() => { process.chdir(folder); });
  afterAll(() => { process.chdir(home); });

  /** With its content ID, which is random, and may be short. */
  function parts(path: string): { head: string; descriptor: string; tables: string; size: number } {
    const bytes = readFileSync(path), hex = (from: number, to: number): string => bytes.subarray(from, to).toString("hex");
    const sparse = bytes.subarray(0, 4).toString("latin1") === "KDMV", text = sparse ? bytes.subarray(512, 21 * 512) : bytes;
    return { head: sparse ? hex(0, 512) : "", descriptor: text.toString("latin1").replaceAll("\0", "").replace(/^CID=.*/m, "CID"), tables: sparse ? hex(21 * 512, bytes.length) : "", size: sparse ? bytes.length : 0 };
  }

  test.each([
    "", "zeroed_grain=on", "subformat=streamOptimized", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat", "adapter_type=lsilogic,hwversion=9,toolsversion=7", "compat6=on",
  ])("a new image (%s) is QEMU's to the byte", async (options) => {
    const more = options === "" ? [] : ["-o", options];
    for (const size of ["1000", "3M", "5G"]) {
      const args = ["create", "-q", "-f", "vmdk", ...more, "new.vmdk", size], files = (): string[] => readdirSync(".").filter((name) => name.startsWith("new"));
      expect(qemuImg(...args).status).toBe(0);
      const wanted = files().map((name) => [name, name.includes("-f") ? "flat" : parts(name)]);
      expect((await disk86(...args)).status).toBe(0);
      expect(files().map((name) => [name, name.includes("-f") ? "flat" : parts(name)])).toEqual(wanted);
      for (const name of files()) runTool("rm", [name]);
    }
  });

  seeded("far apart in 5 GiB of several extents, with a cache of a few tables", async (random) => {
    for (const options of ["", "subformat=twoGbMaxExtentSparse"]) {
      const image = newImage(), places = [0, 700, 2047, 2048, 4095.9375, 5000].map((at) => at * MIB);
      image.create(5 * GIB, options);
      image.io(...places.map((at, i) => `write -q -P ${i + 1} ${at} 128k`));
      const disk = await image.open({ tableCache: 1 }), some = new Uint8Array(128 * KIB);
      for (const [i, at] of places.entries()) {
        await disk.read(at, some);
        expect(new Set(some)).toEqual(new Set([i + 1]));
        await disk.write(at + 192 * KIB, some.fill(i + 101));
        if (random.chance(0.3)) await disk.flush();
      }
      await disk.close();
      image.io(...places.flatMap((at, i) => [`read -q -P ${i + 101} ${at + 192 * KIB} 128k`, `read -q -P ${i + 1} ${at} 128k`]));
      image.expectSound();
      expect(options !== "" || inStep(readFileSync(image.path))).toBe(true);
    }
  });

  seeded("a chain of three, written on by both; a parent that changed is refused by both", async (random) => {
    const [base, middle, top] = [newImage("chain0.vmdk"), newImage("chain1.vmdk"), newImage("chain2.vmdk")] as const, size = 3 * MIB;
    base.create(size, "subformat=twoGbMaxExtentSparse");
    base.scribble(random, 10, size);
    middle.create(size, "zeroed_grain=on", ["-b", "chain0.vmdk", "-F", "vmdk"]);
    middle.scribble(random, 10, size);
    expect(await disk86("create", "-q", "-f", "vmdk", "-b", "chain1.vmdk", "-F", "vmdk", "chain2.vmdk", "4M")).toMatchObject({ status: 0 });
    await takeTurns(random, top, 4 * MIB);
    const disk = await middle.open();
    await disk.write(0, new Uint8Array(1).fill(1));
    await disk.close();
    expect(tryTool("qemu-io", ["-f", "vmdk", "-c", "read 0 4M", top.path]).stdout).toMatch(/failed/);
    await expect(top.open()).rejects.toThrow(/was changed after/);
    expect((await disk86("info", "chain2.vmdk")).status).toBe(0);
    base.io("write -q 0 512");
    await expect(middle.open()).rejects.toThrow(/was changed after/);
  });

  test("a convert that fails leaves nothing of an image of several files", async () => {
    writeFileSync("torn.raw", new Uint8Array(3 * MIB).fill(7));
    runTool("qemu-img", ["convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", "torn.raw", "torn.vmdk"]);
    const bytes = readFileSync("torn.vmdk");
    // The grains stand one behind the other from sector 128 on.
    bytes.fill(0xff, 170 * SECTOR, 171 * SECTOR);
    writeFileSync("torn.vmdk", bytes);
    const before = readdirSync(".").toSorted();
    for (const subformat of ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat", "streamOptimized"]) {
      const { status, stderr } = await disk86("convert", "-O", "vmdk", "-o", `subformat=${subformat}`, "torn.vmdk", "half.vmdk");
      expect([status, stderr]).toEqual([1, expect.stringMatching(/damaged/)]);
      expect(readdirSync(".").toSorted()).toEqual(before);
    }
  });
});
