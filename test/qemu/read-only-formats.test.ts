import { createHash } from "node:crypto";
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { bochsContents, type BochsOptions, makeBochs } from "../support/bochs.ts";
import { disk86, qemuImg } from "../support/cli.ts";
import { makeCloop } from "../support/cloop.ts";
import { dmgContents, makeDmg, type DmgChunk, type DmgOptions, SECTOR } from "../support/dmg.ts";
import { Random } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB;
const folder = tempFolder(), home = process.cwd(), random = new Random(86);

const zero = (sectors: number): DmgChunk => ({ type: "zero", sectors });
const full = (type: DmgChunk["type"], sectors: number): DmgChunk => ({ type, sectors, data: random.text(sectors * SECTOR) });
const HUGE = 5 * GIB;

const DMGS: Readonly<Record<string, DmgOptions>> = {
  empty: { partitions: [[]] },
  "one raw chunk": { partitions: [[full("raw", 100)]] },
  "a raw chunk that ends within a sector": { partitions: [[{ type: "raw", sectors: 3, data: random.bytes(1100) }]] },
  sparse: { partitions: [[zero(5000), full("zlib", 3), zero(100), full("zlib", 512), { type: "ignored", sectors: 70_000 }]] },
  full: { partitions: [[full("zlib", 512), full("raw", 512), full("zlib", 512), full("zlib", 512), full("raw", 1), full("zlib", 37)]] },
  "of random data": { partitions: [Array.from({ length: 40 }, () => ({ type: "zlib" as const, sectors: 64, data: random.bytes(64 * SECTOR) }))] },
  "several partitions, data fork elsewhere": { before: 1000, partitions: [[full("raw", 1)], [full("zlib", 63)], [zero(2000), full("zlib", 512), full("raw", 9)], [{ type: "ignored", sectors: 14 }], [full("zlib", 33)]] },
  "tables in a resource fork": { tables: "resources", partitions: [[full("zlib", 1)], [zero(9), full("zlib", 500)], [full("raw", 5)]] },
  "one chunk of 32 MiB": { partitions: [[{ type: "zlib", sectors: 65536, data: new Uint8Array(32 * MIB).map((_, i) => i >> 9) }, full("zlib", 7)]] },
  "over 4 GiB": { partitions: [[full("zlib", 8), zero(HUGE / SECTOR), full("zlib", 512), full("raw", 3)]] },
};

const sectors = (count: number, every: number): Map<number, Uint8Array> => new Map(Array.from({ length: count }, (_, i) => [i * every, random.bytes(SECTOR)]));
const BOCHS: Readonly<Record<string, BochsOptions>> = Object.fromEntries(([1, 2] as const).flatMap((version) => [
  [`empty, version ${version}`, { version, size: 3 * MIB, extentSize: 16 * KIB, extents: [] }],
  [`sparse, version ${version}`, { version, size: 3 * MIB + 512, extentSize: 64 * KIB, extents: [{ index: 40, sectors: sectors(5, 3) }, { index: 0, sectors: sectors(128, 1) }, { index: 48, sectors: sectors(1, 1) }] }],
  [`full, version ${version}`, { version, size: MIB, extentSize: 8 * KIB, extents: Array.from({ length: 128 }, (_, i) => ({ index: (i * 37) % 128, sectors: sectors(16, 1) })) }],
  [`smallest extents, version ${version}`, { version, size: 100 * KIB, extentSize: 512, extents: Array.from({ length: 150 }, (_, i) => ({ index: i, sectors: sectors(i % 2, 1) })) }],
  [`largest extents, version ${version}`, { version, size: 40 * MIB, extentSize: 8 * MIB, extents: [{ index: 3, sectors: sectors(300, 7) }] }],
  [`over 4 GiB, version ${version}`, { version, size: HUGE, extentSize: MIB, extents: [{ index: 5000, sectors: sectors(300, 6) }, { index: 2, sectors: sectors(2000, 1) }] }],
]));

function cloopBlocks(size: number, count: number): Uint8Array[] {
  const empty = new Uint8Array(size);
  return Array.from({ length: count }, (_, i) => (i % 5 === 1 ? empty : i % 5 === 2 ? random.bytes(size) : random.text(size)));
}
const CLOOPS: Readonly<Record<string, readonly [blockSize: number, blocks: readonly Uint8Array[]]>> = {
  empty: [65536, []],
  "one block": [65536, cloopBlocks(65536, 1)],
  "smallest blocks": [512, cloopBlocks(512, 3000)],
  usual: [65536, cloopBlocks(65536, 30)],
  "odd blocks": [1536, cloopBlocks(1536, 700)],
  "blocks of 20 MiB": [20 * MIB, [new Uint8Array(20 * MIB).fill(7), new Uint8Array(20 * MIB).map((_, i) => i >> 7)]],
};

/** QEMU's own words but for those on what Debian's build lacks. */
function theirs(...args: string[]): ReturnType<typeof qemuImg> {
  const { stderr, ...rest } = qemuImg(...args);
  return { ...rest, stderr: stderr.replace(/qemu: module block-block-dmg-\w+ not found.*\n/g, "") };
}

/** What is said of a file, and what it is read as, is the same by us and by QEMU. Answers the hash of what we read. */
async function expectAsQemu(file: string, format: string): Promise<string> {
  for (const output of ["human", "json"]) expect(await disk86("info", "-f", format, `--output=${output}`, file)).toEqual(theirs("info", "-f", format, `--output=${output}`, file));
  expect(JSON.parse((await disk86("info", "--output=json", file)).stdout)).toMatchObject({ format });
  expect(theirs("convert", "-f", format, "-O", "raw", file, "theirs.raw")).toMatchObject({ status: 0, stderr: "" });
  expect(await disk86("convert", "-f", format, "-O", "raw", file, "ours.raw")).toEqual({ status: 0, stdout: "", stderr: "" });
  const [ours, wanted] = [statSync("ours.raw"), statSync("theirs.raw")];
  expect(ours.size).toBe(wanted.size);
  expect(ours.blocks * 512).toBeLessThanOrEqual(wanted.blocks * 512 + 64 * KIB);
  expect(qemuImg("compare", "-f", "raw", "-F", "raw", "ours.raw", "theirs.raw").stdout).toBe("Images are identical.\n");
  const read = ours.size < GIB ? hash(readFileSync("ours.raw")) : "too large";
  for (const name of ["ours.raw", "theirs.raw"]) rmSync(name);
  return read;
}

const hash = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe.skipIf(!requireTool("qemu-img"))("formats that are only read, as QEMU reads them", () => {
  beforeAll(() => process.chdir(folder));
  afterAll(() => process.chdir(home));

  test.each(Object.keys(DMGS))("dmg: %s", async (name) => {
    const options = DMGS[name] as DmgOptions;
    writeFileSync("x.dmg", makeDmg(options));
    expect(await expectAsQemu("x.dmg", "dmg")).toBe(name === "over 4 GiB" ? "too large" : hash(dmgContents(options.partitions)));
  });

  test.each(Object.keys(BOCHS))("bochs: %s", async (name) => {
    const options = BOCHS[name] as BochsOptions;
    writeFileSync("x.bochs", makeBochs(options));
    expect(await expectAsQemu("x.bochs", "bochs")).toBe(options.size > GIB ? "too large" : hash(bochsContents(options)));
  });

  test.each(Object.keys(CLOOPS))("cloop: %s", async (name) => {
    const [blockSize, blocks] = CLOOPS[name] as (typeof CLOOPS)[string];
    writeFileSync("x.cloop", makeCloop(blockSize, blocks));
    expect(await expectAsQemu("x.cloop", "cloop")).toBe(hash(Buffer.concat(blocks)));
  });

  test("cloop: over 4 GiB", async () => {
    const empty = new Uint8Array(MIB);
    writeFileSync("x.cloop", makeCloop(MIB, Array.from({ length: 5000 }, (_, i) => (i === 4500 ? random.bytes(MIB) : empty))));
    expect(await expectAsQemu("x.cloop", "cloop")).toBe("too large");
  }, 120_000);

  test("what cannot be is refused as qemu-img does", async () => {
    writeFileSync("x.dmg", makeDmg(DMGS["sparse"] as DmgOptions));
    for (const args of [["resize", "x.dmg", "30M"], ["check", "x.dmg"], ["create", "-f", "dmg", "y.dmg", "1M"], ["convert", "-O", "bochs", "x.dmg", "y"], ["convert", "-O", "cloop", "x.dmg", "y"], ["info", "-f", "cloop", "x.dmg"], ["info", "-f", "bochs", "x.dmg"]]) {
      const wanted = theirs(...args), ours = await disk86(...args);
      expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
    }
  });

  // Debian's QEMU is without bzip2.
  test.skipIf(!requireTool("bzip2"))("dmg: bzip2", async () => {
    const partitions = [[full("bzip2", 100), zero(5), full("bzip2", 2000)], [full("zlib", 3), full("bzip2", 1)]];
    writeFileSync("bz.dmg", makeDmg({ partitions }));
    expect(await disk86("convert", "-O", "raw", "bz.dmg", join(folder, "bz.raw"))).toEqual({ status: 0, stdout: "", stderr: "" });
    expect(hash(readFileSync("bz.raw"))).toBe(hash(dmgContents(partitions)));
  });
});
