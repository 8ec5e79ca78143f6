import { describe, expect, test } from "vitest";
import { createVdi } from "../../disk/formats/vdi/create.ts";
import { vdi } from "../../disk/formats/vdi/index.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { refused, survivals, viewOf } from "../support/hostile.ts";

const MIB = 2 ** 20, MAP = 512;
const AT = { version: 0x44, type: 0x4c, map: 0x154, data: 0x158, sector: 0x168, size: 0x170, blockSize: 0x178, extra: 0x17c, blocks: 0x180, count: 0x184, link: 0x1a8, parent: 0x1b8 };

/** A disk of 8 MiB, whose first three blocks were written. */
async function image(blockSize = 4096): Promise<MemoryStorage> {
  const file = new MemoryStorage(undefined, "hostile.vdi");
  await run(createVdi(file, { size: 8 * MIB, blockSize }));
  const disk = await open(file);
  await disk.write(0, new Uint8Array(3 * blockSize).fill(1));
  await disk.close();
  return file;
}

describe("a header is refused by what is wrong with it, before anything is made of it", () => {
  test.each([
    ["version", 0x10000, "unsupported", /version 1\.0/], ["type", 4, "unsupported", /differencing/], ["type", 3, "unsupported", /undo/], ["type", 7, "unsupported", /type 7/],
    ["parent", 1, "unsupported", /parent/], ["link", 1, "unsupported", /parent/], ["map", 0, "corrupt", /impossible/], ["map", 513, "corrupt", /impossible/], ["map", 0xffff_fe00, "corrupt", /impossible|truncated/],
    ["data", 512, "corrupt", /impossible/], ["data", 9000, "corrupt", /impossible/], ["sector", 4096, "unsupported", /sectors/], ["size", 2 ** 31, "corrupt", /too few/],
    ["blockSize", 0, "unsupported", /blocks of 0/], ["blockSize", 3 * MIB, "unsupported", /power of two/], ["blockSize", 2 ** 31, "unsupported", /power of two/],
    ["extra", 512, "unsupported", /extra/], ["blocks", 0x1fff_ff80, "corrupt", /impossible/], ["blocks", 0xffff_ffff, "unsupported", /bound/], ["blocks", 1, "corrupt", /too few/],
  ] as const)("%s = %i", async (field, value, kind, what) => {
    const file = await image();
    viewOf(file).setUint32(AT[field], value, true);
    for (const readOnly of [true, false]) {
      const error = refused(file, "vdi", readOnly);
      expect(error.kind).toBe(kind);
      expect(error.message).toMatch(what);
    }
  });

  test("a map of 2 GiB in a file that has not so much", async () => {
    const file = await image();
    viewOf(file).setUint32(AT.blocks, 0x1fff_ff00, true);
    viewOf(file).setUint32(AT.data, 0xffff_fe00, true);
    expect(refused(file, "vdi", true)).toMatchObject({ kind: "corrupt" });
  });
});

/** The byte there; `undefined`: the file is truncated. */
function firstOf(disk: Storage, offset: number): number | undefined {
  const byte = new Uint8Array(1);
  try {
    void disk.read(offset, byte);
    return byte[0];
  } catch (error) {
    if (/truncated/.test(String(error))) return undefined;
    throw error;
  }
}

describe("a map that contradicts itself is for reading only", () => {
  test.each([["twice", 0, /shares block 0/, 1], ["too large", 5000, /there are only 2048 blocks/, undefined], ["behind the end", 1000, /truncated/, undefined]] as const)("%s", async (_, number, what, reads) => {
    const file = await image();
    viewOf(file).setUint32(MAP + 4, number, true);
    expect(refused(file, "vdi", false).message).toMatch(what);
    const disk = await open(file, { readOnly: true }), some = new Uint8Array(512);
    await disk.read(0, some);
    expect(some[0]).toBe(1);
    expect(firstOf(disk, 4096)).toBe(reads);
    await disk.close();
  });
});

test("discarded blocks read as zeros, and can be written; gaps are filled, and the count is mended", async () => {
  const file = await image();
  viewOf(file).setUint32(MAP + 4, 0xffff_fffe, true);
  expect(await run(vdi.check!(file))).toMatchObject({ corruptions: 1 });
  let disk = await open(file);
  const some = new Uint8Array(4096);
  await disk.read(4096, some);
  expect(some.every((byte) => byte === 0)).toBe(true);
  await disk.write(5 * 4096, some.fill(7));
  await disk.close();
  expect(viewOf(file).getUint32(MAP + 20, true)).toBe(1);
  expect(await run(vdi.check!(file))).toMatchObject({ corruptions: 0 });
  viewOf(file).setUint32(AT.count, 1, true);
  disk = await open(file);
  await disk.write(4096, some.fill(8));
  await disk.close();
  expect(viewOf(file).getUint32(MAP + 4, true)).toBe(3);
  expect(await run(vdi.check!(file))).toMatchObject({ corruptions: 0 });
});

test("any damage to header and map ends in a DiskError, or in a disk that can be used", async () => {
  const random = new Random(4), { bytes: good } = await image(MIB);
  const usable = await survivals(random, 1000, {
    format: "vdi", good, lengths: [good.length, 2 * MIB, 700],
    damage(file) {
      for (let i = random.int(3); i >= 0; i--) {
        const at = random.pick([AT.version, AT.type, AT.map, AT.data, AT.size, AT.blockSize, AT.extra, AT.blocks, AT.count, MAP, MAP + 4, MAP + 8, MAP + 28]);
        viewOf(file).setUint32(at, random.pick([0, 1, 2, 3, 8, 512, 513, 4096, MIB, 2 * MIB, 2 ** 31, 0xffff_fffe, 0xffff_ffff]), true);
      }
    },
  });
  expect(usable).toBeGreaterThan(50);
});
