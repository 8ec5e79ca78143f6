import { describe, expect, test } from "vitest";
import { createVpc, vpcCreation } from "../../disk/formats/vpc/create.ts";
import { geometryFor, geometryOf, sectorsOf } from "../../disk/formats/vpc/geometry.ts";
import { vpc } from "../../disk/formats/vpc/index.ts";
import { open } from "../../disk/open.ts";
import { all } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { Random } from "../support/generator.ts";
import { refused, survivals, viewOf } from "../support/hostile.ts";
import { anyChange, ModelDisk } from "../support/model.ts";
import { inMode, MODES } from "../support/modes.ts";
import { seeded } from "../support/random.ts";
import { brokenVpc, differencing, fixedVpc, seal, sealAll, vpcContents } from "../support/vpc-inspect.ts";

const KIB = 1024, MIB = 1024 * KIB, BLOCK = 64 * KIB, BAT = 1536;
/** In the footer, and in the dynamic disk header behind it. */
const AT = { dataOffset: 16, creator: 28, currentSize: 48, geometry: 56, type: 60, checksum: 64, bat: 528, entries: 540, blockSize: 544, sparseChecksum: 548, locator: 512 + 576 };

function empty(size = 8 * MIB, blockSize = BLOCK): MemoryStorage {
  const file = new MemoryStorage(undefined, "some.vhd");
  void run(createVpc(file, { size, blockSize, forceSize: true }));
  return file;
}

/** A disk of 8 MiB, whose first three blocks were written. */
async function image(): Promise<MemoryStorage> {
  const file = empty(), disk = await open(file);
  await disk.write(0, new Uint8Array(3 * BLOCK).fill(1));
  await disk.close();
  return file;
}

describe("a header is refused by what is wrong with it, before anything is made of it", () => {
  test.each([
    ["type", 7, "unsupported", /type 7/], ["dataOffset", 1, "corrupt", /impossible place/], ["currentSize", 0x1ff, "unsupported", /2040 GiB/], ["currentSize", 0x400000, "corrupt", /larger than any/], ["currentSize", 1, "corrupt", /too few/],
    ["bat", 1, "corrupt", /truncated/], ["entries", 2 ** 30, "unsupported", /bound/], ["entries", 2 ** 28, "corrupt", /truncated/], ["entries", 1, "corrupt", /too few/],
    ["blockSize", 0, "corrupt", /power of two/], ["blockSize", 3 * MIB, "corrupt", /power of two/], ["checksum", 0, "corrupt", /checksum/], ["sparseChecksum", 0, "corrupt", /checksum/],
  ] as const)("%s = %i", async (field, value, kind, what) => {
    const file = await image();
    if (field === "currentSize" || field === "dataOffset") viewOf(file).setUint32(AT[field], value);
    viewOf(file).setUint32(AT[field], value);
    if (field === "checksum") file.bytes.copyWithin(file.size - 512, 0, 512);
    else if (field !== "sparseChecksum") sealAll(file.bytes);
    for (const readOnly of [true, false]) {
      const error = refused(file, "vpc", readOnly);
      expect(error.kind).toBe(kind);
      expect(error.message).toMatch(what);
    }
  });

  test("no VHD at all", () => {
    expect(refused(new MemoryStorage(new Uint8Array(5000)), "vpc", true)).toMatchObject({ kind: "invalid-format" });
    expect(refused(new MemoryStorage(new Uint8Array(5)), "vpc", true)).toMatchObject({ kind: "invalid-format" });
  });

  test("a fixed disk that is cut off, and blocks too large to be written", () => {
    const file = new MemoryStorage(fixedVpc(new Uint8Array(MIB)));
    void file.write(MIB - 512, file.bytes.slice(MIB));
    void file.truncate(MIB);
    expect(refused(file, "vpc", true).message).toMatch(/truncated/);
    expect(refused(empty(MIB, 128 * MIB), "vpc", false).message).toMatch(/can only be read/);
  });
});

describe("a BAT that contradicts itself is for reading only", () => {
  test.each([["twice", 4, /shares its place/], ["overlapping", 20, /shares its place/], ["in the header", 1, /not for blocks/], ["behind the end", 100_000, /truncated/]] as const)("%s", async (_, sector, what) => {
    const file = await image(), first = viewOf(file).getUint32(BAT);
    viewOf(file).setUint32(BAT + 4, sector === 4 || sector === 20 ? first + sector - 4 : sector);
    expect(refused(file, "vpc", false).message).toMatch(what);
    const disk = await open(file, { readOnly: true }), some = new Uint8Array(512);
    await disk.read(0, some);
    expect(some[0]).toBe(1);
    await disk.close();
  });
});

describe("the footer", () => {
  test("the copy at the beginning stands for one that is gone, and writing puts it back", async () => {
    const file = await image(), end = file.size;
    void file.truncate(end - 512);
    const disk = await open(file);
    await disk.write(4 * MIB, new Uint8Array(10).fill(9));
    await disk.close();
    expect(file.size).toBe(end + BLOCK + 512);
    expectBytes(file.bytes.subarray(-512), file.bytes.subarray(0, 512), "the footer");
    expect(brokenVpc(file.bytes)).toBeUndefined();
  });

  test("the one at the end stands for a copy that is gone", async () => {
    const file = await image(), some = new Uint8Array(3 * BLOCK);
    file.bytes.fill(0, 0, 512);
    const disk = await open(file, { format: "vpc" });
    await disk.read(0, some);
    expect(new Set(some)).toEqual(new Set([1]));
    await disk.close();
  });

  test("what a crash left behind the end is cut off", async () => {
    const file = await image(), end = file.size;
    await file.write(end, new Uint8Array(10_000).fill(7));
    await (await open(file)).close();
    expect(file.size).toBe(end);
    expectBytes(file.bytes.subarray(-512), file.bytes.subarray(0, 512), "the footer");
  });

  test("what a guest writes to a fixed disk's first sectors is no header", async () => {
    const trap = empty(MIB), contents = new Uint8Array(2 * MIB);
    differencing(trap, "secret.vhd");
    contents.set(trap.bytes.subarray(0, MIB));
    const disk = await open(new MemoryStorage(fixedVpc(contents)), { format: "vpc" }), read = new Uint8Array(2 * MIB);
    expect(disk.size).toBe(2 * MIB);
    await disk.read(0, read);
    expectBytes(read, contents, "the disk");
    await disk.close();
  });

  test("511 bytes, as Virtual PC wrote before 2004", async () => {
    const contents = new Random(2).bytes(MIB), file = new MemoryStorage(fixedVpc(contents).slice(0, -1)), disk = await open(file, { format: "vpc" }), read = new Uint8Array(MIB);
    await disk.read(0, read);
    expectBytes(read, contents, "the disk");
    await disk.close();
  });

  test.each([["qemu", 64 * 4 * 17], ["vpc ", 64 * 4 * 17], ["what", 64 * 4 * 17], ["win ", 4096], ["d2v ", 4096], ["qem2", 4096], ["tap\0", 4096], ["CTXS", 4096], ["wa\0\0", 4096], ["vbox", 4096]])("the size of what %j made", async (creator, sectors) => {
    const file = empty();
    file.bytes.set(new TextEncoder().encode(creator), AT.creator);
    viewOf(file).setBigUint64(AT.currentSize, 4096n * 512n);
    viewOf(file).setUint32(AT.geometry, (64 << 16) | (4 << 8) | 17);
    sealAll(file.bytes);
    const disk = await open(file);
    expect(disk.size).toBe(sectors * 512);
    await disk.close();
  });
});

test("geometries have room for what they are for, and no more than they must", () => {
  const random = new Random(9);
  for (let i = 0; i < 2000; i++) {
    const sectors = random.int(2 ** random.int(32)), geometry = geometryFor(sectors), most = sectorsOf(geometryOf(Infinity));
    expect(sectorsOf(geometry)).toBeGreaterThanOrEqual(Math.min(sectors, most));
    expect(sectorsOf(geometry) - Math.min(sectors, most)).toBeLessThan(16 * 255);
  }
});

test("options that no image can have are refused by name", () => {
  for (const [values, message] of [[{ size: 2041 * 2 ** 30 }, /too large/], [{ size: 1, subformat: "x" }, /does not accept value 'x'/], [{ size: 2041 * 2 ** 30, force_size: true }, /too large/], [{ size: -1 }, /no size/]] as const) {
    expect(() => vpcCreation.plan(values)).toThrow(message);
  }
});

describe("a differencing image", () => {
  const named = async (...locators: Parameters<typeof differencing>[2] & object): Promise<string | undefined> => {
    const file = empty();
    differencing(file, "C:\\vm\\plain.vhd", locators);
    return (await run(vpc.info(file))).backing?.file;
  };

  test("names its parent in many ways", async () => {
    expect(await named()).toBe("plain.vhd");
    expect(await named({ platform: "W2ku", text: "D:\\x\\abs.vhd", encoding: "utf16le" })).toBe("abs.vhd");
    expect(await named({ platform: "W2ku", text: "D:\\x\\abs.vhd", encoding: "utf16le" }, { platform: "W2ru", text: ".\\sub\\rel.vhd", encoding: "utf16le" })).toBe("sub/rel.vhd");
    expect(await named({ platform: "W2ru", text: "..\\up.vhd", encoding: "utf16le" })).toBe("../up.vhd");
    expect(await named({ platform: "W2ru", text: "\\\\server\\share\\far.vhd", encoding: "utf16le" })).toBe("far.vhd");
    expect(await named({ platform: "MacX", text: "file://./with%20blank.vhd", encoding: "utf8" })).toBe("with blank.vhd");
    expect(await named({ platform: "MacX", text: "file:///dir/abs.vhd", encoding: "utf8" })).toBe("/dir/abs.vhd");
    expect(await named({ platform: "Wi2k", text: "old", encoding: "utf8" })).toBe("plain.vhd");
  });

  describe.each(MODES)("%s storage", (mode) => {
    seeded("shows its parent sector by sector, and copies on write", async (random) => {
      const file = empty(MIB), base = random.bytes(MIB - 5120), plain = await open(file);
      for (const at of [0, 3, 4, 9, 15]) await plain.write(at * BLOCK, random.bytes(BLOCK));
      await plain.close();
      // Behind the blocks there is room for the locator: the footer moves on.
      differencing2(file);
      for (const block of [0, 3, 9, 15]) {
        const at = viewOf(file).getUint32(BAT + block * 4) * 512;
        file.bytes.set(random.pick([random.bytes(16), new Uint8Array(16), new Uint8Array(16).fill(0xf0)]), at);
      }
      const shown = vpcContents(file.bytes, base), gate = { open: () => new MemoryStorage(fixedVpc(base), "base") };
      const reader = await open(inMode(mode, new MemoryStorage(file.bytes.slice()), random), { gate, readOnly: true }), read = new Uint8Array(MIB);
      await reader.read(0, read);
      expectBytes(read, shown, "what is read");
      await reader.close();
      const model = new ModelDisk(await open(inMode(mode, file, random), { gate, tableCache: 1 }), shown);
      for (let i = 0; i < 30; i++) {
        await all(Array.from({ length: 4 }, () => anyChange(random, model, 5000)));
        if (random.chance(0.2)) await model.disk.flush();
        await model.compare();
      }
      await model.disk.close();
      expectBytes(vpcContents(file.bytes, base), model.bytes, "what stands in the file");
    });
  });
});

/** The parent's name alone, in an image that has blocks already. */
function differencing2(file: MemoryStorage): void {
  viewOf(file).setUint32(AT.type, 4);
  file.bytes.set(Buffer.from("base", "utf16le").swap16(), 512 + 64);
  sealAll(file.bytes);
}

test("a dynamic image whose bitmaps are not full: sectors that are written are marked", async () => {
  const file = await image(), at = viewOf(file).getUint32(BAT) * 512;
  file.bytes.fill(0, at, at + 16);
  const disk = await open(file), some = new Uint8Array(BLOCK);
  await disk.write(1000, new Uint8Array(24).fill(5));
  await disk.read(0, some);
  expect([some[999], some[1000], some[1023], some[1024]]).toEqual([1, 5, 5, 1]);
  await disk.close();
  expect(new Set(file.bytes.subarray(at, at + 16))).toEqual(new Set([0xff]));
});

test("any damage to footer, header and BAT ends in a DiskError, or in a disk that can be used", async () => {
  const random = new Random(4), { bytes: good } = await image();
  const usable = await survivals(random, 3000, {
    format: "vpc", good, lengths: [good.length, good.length - 512, good.length - 5000, 700, 1300],
    damage(file) {
      for (let i = random.int(3); i >= 0; i--) {
        const at = random.pick([...Object.values(AT), AT.dataOffset + 4, AT.currentSize + 4, AT.bat + 4, AT.locator + 4, AT.locator + 8, AT.locator + 16, BAT, BAT + 4, BAT + 8, BAT + 28]);
        if (at < file.size - 4) viewOf(file).setUint32(at, random.pick([0, 1, 2, 3, 4, 5, 8, 24, 133, 512, 1024, 65536, 2 ** 21, 2 ** 31, 0xffff_ffff]));
      }
      if (random.chance(0.7) && file.size > 1536) {
        seal(file.bytes, 0, 512, 64);
        seal(file.bytes, 512, 1024, 36);
      }
    },
  });
  expect(usable).toBeGreaterThan(100);
});
