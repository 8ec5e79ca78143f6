import { describe, expect, test } from "vitest";
import { checkParallels } from "../../disk/formats/parallels/check.ts";
import { createParallels } from "../../disk/formats/parallels/create.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { refused, survivals, viewOf } from "../support/hostile.ts";

const MIB = 2 ** 20, BAT = 64;
const AT = { version: 16, tracks: 28, entries: 32, sectors: 36, inUse: 44, data: 48, extension: 56 };

/** A disk of 8 MiB, whose first three clusters, of 4 KiB, were written. */
async function image(): Promise<MemoryStorage> {
  const file = new MemoryStorage(undefined, "hostile.hdd");
  await run(createParallels(file, { size: 8 * MIB, clusterSize: 4096 }));
  const disk = await open(file);
  await disk.write(0, new Uint8Array(3 * 4096).fill(1));
  await disk.close();
  return file;
}

describe("a header is refused by what is wrong with it, before anything is made of it", () => {
  test.each([
    ["version", 3, "unsupported", /version 3/], ["tracks", 0, "corrupt", /no sectors/], ["tracks", 2 ** 31, "unsupported", /bound/], ["entries", 2 ** 30, "unsupported", /bound/],
    ["entries", 2 ** 28, "corrupt", /truncated/], ["entries", 1, "corrupt", /too few/], ["sectors", 2 ** 31, "corrupt", /too few/], ["data", 1, "corrupt", /within the BAT/], ["data", 1001, "corrupt", /no cluster/],
  ] as const)("%s = %i", async (field, value, kind, what) => {
    const file = await image();
    viewOf(file).setUint32(AT[field], value, true);
    for (const readOnly of [true, false]) {
      const error = refused(file, "parallels", readOnly);
      expect(error.kind).toBe(kind);
      expect(error.message).toMatch(what);
    }
  });

  test("the Format Extension is for reading only", async () => {
    const file = await image();
    viewOf(file).setUint32(AT.extension, 40, true);
    expect(refused(file, "parallels", false).message).toMatch(/Format Extension/);
    await (await open(file, { readOnly: true })).close();
  });
});

describe("a BAT that contradicts itself is for reading only", () => {
  test.each([["twice", 3, /shares its place/], ["before the data", 1, /before the data/], ["behind the end", 10_000, /outside the image/]] as const)("%s", async (_, value, what) => {
    const file = await image();
    viewOf(file).setUint32(BAT + 4, value, true);
    expect(refused(file, "parallels", false).message).toMatch(what);
    const disk = await open(file, { readOnly: true }), some = new Uint8Array(512);
    await disk.read(0, some);
    expect(some[0]).toBe(1);
    await disk.close();
    expect(await run(checkParallels(file))).toMatchObject({ corruptions: 1 });
  });
});

test("a repair mends what it can: entries outside, space behind the end, the mark of use", async () => {
  const file = await image(), length = file.size;
  viewOf(file).setUint32(BAT + 4 * 9, 10_000, true);
  viewOf(file).setUint32(AT.inUse, 0x746f6e59, true);
  void file.truncate(length + 10_000);
  expect(await run(checkParallels(file))).toMatchObject({ corruptions: 2, leaks: 3 });
  expect(await run(checkParallels(file, { repair: "leaks" }))).toMatchObject({ corruptions: 2, leaks: 0, leaksFixed: 3 });
  expect(await run(checkParallels(file, { repair: "all" }))).toMatchObject({ corruptions: 0, corruptionsFixed: 2 });
  expect(await run(checkParallels(file))).toMatchObject({ corruptions: 0, leaks: 0, allocatedClusters: 3, imageEndOffset: length });
  expect(file.size).toBe(length);
});

test("any damage to header and BAT ends in a DiskError, or in a disk that can be used", async () => {
  const random = new Random(4), { bytes: good } = await image();
  const usable = await survivals(random, 3000, {
    format: "parallels", good, lengths: [good.length, good.length - 5000, 700], also: (file) => void run(checkParallels(file)),
    damage(file) {
      for (let i = random.int(3); i >= 0; i--) {
        const at = random.pick([AT.version, AT.tracks, AT.entries, AT.sectors, AT.inUse, AT.data, AT.extension, BAT, BAT + 4, BAT + 8, BAT + 28]);
        if (at < file.size) viewOf(file).setUint32(at, random.pick([0, 1, 2, 3, 4, 8, 24, 512, 2048, 16384, 2 ** 31, 0xffff_ffff]), true);
      }
    },
  });
  expect(usable).toBeGreaterThan(100);
});
