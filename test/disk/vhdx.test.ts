import { describe, expect, test } from "vitest";
import { crc32c } from "../../disk/bytes/crc32c.ts";
import { checkVhdx } from "../../disk/formats/vhdx/check.ts";
import { createVhdx, vhdxCreation } from "../../disk/formats/vhdx/create.ts";
import { vhdx } from "../../disk/formats/vhdx/index.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { Random } from "../support/generator.ts";
import { refused, survivals, viewOf } from "../support/hostile.ts";
import { inMode, MODES } from "../support/modes.ts";
import { seeded } from "../support/random.ts";
import { batAfterReplay, brokenVhdx, differencingVhdx, putBlock, sealVhdx } from "../support/vhdx-inspect.ts";

const KIB = 1024, MIB = 1024 * KIB, HEADERS = [64 * KIB, 128 * KIB] as const, REGIONS = [192 * KIB, 256 * KIB] as const, LOG = MIB, BAT = 2 * MIB, METADATA = 3 * MIB, ITEMS = METADATA + 64 * KIB;

function empty(size = 8 * MIB, stateZero = true, name = "some.vhdx"): MemoryStorage {
  const file = new MemoryStorage(undefined, name);
  void run(createVhdx(file, { size, blockSize: MIB, stateZero }));
  return file;
}

/** A disk of 8 MiB, whose first two blocks were written. */
async function image(): Promise<MemoryStorage> {
  const file = empty(), disk = await open(file);
  await disk.write(0, new Uint8Array(2 * MIB).fill(1));
  await disk.close();
  return file;
}

/** As a power cut leaves it, before the BAT was written. */
async function unreplayed(): Promise<MemoryStorage> {
  const file = await image(), disk = await open(file);
  await disk.write(4 * MIB, new Uint8Array(MIB).fill(2));
  const before = file.bytes.slice(BAT, BAT + 4096);
  await disk.flush();
  const crashed = new MemoryStorage(file.bytes.slice(), "crashed.vhdx");
  crashed.bytes.set(before, BAT);
  return crashed;
}

/** Sets words and puts all checksums of the first MiB right. */
function patched(file: MemoryStorage, ...words: readonly (readonly [at: number, value: number])[]): MemoryStorage {
  for (const [at, value] of words) viewOf(file).setUint32(at, value, true);
  for (const at of HEADERS) sealVhdx(file.bytes, at, 4096);
  for (const at of REGIONS) sealVhdx(file.bytes, at, 64 * KIB);
  return file;
}

const both = (offset: number, value: number, of: readonly number[]) => of.map((at) => [at + offset, value] as const);

test("CRC-32C of RFC 3720", () => {
  expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
  expect(crc32c(new Uint8Array(32).fill(0xff))).toBe(0x62a8ab43);
  expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  expect(crc32c(new TextEncoder().encode("123456789"))).toBe(0xe3069283);
  expect(crc32c(new TextEncoder().encode("56789"), crc32c(new TextEncoder().encode("1234")))).toBe(0xe3069283);
});

describe("what cannot be is refused by what is wrong with it, before anything is made of it", () => {
  test.each([
    ["version", both(66, 2, HEADERS), "unsupported", /version 2/], ["log length", both(68, 0, HEADERS), "corrupt", /impossible length/], ["log offset", both(72, 5, HEADERS), "corrupt", /impossible place/], ["log far away", both(76, 5, HEADERS), "corrupt", /truncated/],
    ["no BAT", both(16, 0, REGIONS).concat(both(44, 0, REGIONS)), "corrupt", /names no BAT/], ["BAT in the log", both(32, MIB, REGIONS), "corrupt", /overlap/], ["BAT in the header", both(32, 0, REGIONS), "corrupt", /impossible place/], ["BAT without length", both(40, 512, REGIONS), "corrupt", /impossible/],
    ["many regions", both(8, 5000, REGIONS), "corrupt", /5000 entries/], ["the BAT twice", both(8, 2, REGIONS).concat(REGIONS.flatMap((at) => [[at + 48, 0x2dc27766], [at + 52, 0x4200f623], [at + 56, 0x5e11649d], [at + 60, 0x084afd9b]] as const)), "corrupt", /twice/],
    ["an unknown region", REGIONS.flatMap((at) => [[at + 8, 3], [at + 80, 77], [at + 100, 0x800000], [at + 96, 8 * MIB], [at + 100, 0], [at + 104, MIB], [at + 108, 1]] as const), "unsupported", /unknown region/],
    ["metadata", [[METADATA, 1]], "corrupt", /metadata table/], ["many items", [[METADATA + 8, 0xffff_0000]], "corrupt", /metadata table/], ["an unknown item", [[METADATA + 32, 1]], "unsupported", /unknown metadata/], ["an item outside", [[METADATA + 48, MIB]], "corrupt", /outside/],
    ["block size", [[ITEMS, 3 * MIB]], "corrupt", /blocks of/], ["small blocks", [[ITEMS, 512 * KIB]], "corrupt", /blocks of/], ["no parent", [[ITEMS + 4, 2]], "corrupt", /does not name/], ["size", [[ITEMS + 8, 5]], "corrupt", /whole sectors/],
    ["large", [[ITEMS + 12, 0x8000]], "corrupt", /64 TiB/], ["a BAT too small", [[ITEMS + 12, 0x100]], "corrupt", /too few/], ["sectors", [[ITEMS + 32, 1024]], "corrupt", /sectors of 1024/],
  ] as const)("%s", async (_, words, kind, what) => {
    const file = patched(await image(), ...words);
    for (const readOnly of [true, false]) {
      const error = refused(file, "vhdx", readOnly);
      expect(error.message).toMatch(what);
      expect(error.kind).toBe(kind);
    }
  });

  test("no VHDX, and one without a sound header or region table", async () => {
    expect(refused(new MemoryStorage(new Uint8Array(5)), "vhdx", true)).toMatchObject({ kind: "invalid-format" });
    const file = await image();
    for (const at of HEADERS) file.bytes[at + 100] = 1;
    expect(refused(file, "vhdx", true).message).toMatch(/No valid VHDX header/);
    const other = await image();
    for (const at of REGIONS) other.bytes[at + 1000] = 1;
    expect(refused(other, "vhdx", true).message).toMatch(/no sound region table/);
  });

  test("one of two headers, and one of two region tables, is enough", async () => {
    for (const which of [0, 1] as const) {
      const file = await image();
      file.bytes[HEADERS[which] + 100] = 1;
      file.bytes[REGIONS[which] + 1000] = 1;
      const disk = await open(file), some = new Uint8Array(10);
      await disk.read(MIB, some);
      expect(some[0]).toBe(1);
      await disk.close();
      expect(brokenVhdx(file.bytes)).toBeUndefined();
    }
  });
});

describe("a BAT that contradicts itself is for reading only", () => {
  test.each([["twice", 4, 6, /shares its place/], ["in the log", 1, 6, /header, the log or a region/], ["behind the end", 1000, 6, /truncated/], ["in a state that is none", 5, 4, /cannot be in/], ["in part", 5, 7, /cannot be in/]] as const)("%s", async (_, mib, state, what) => {
    const file = await image(), first = viewOf(file).getUint32(BAT, true);
    viewOf(file).setUint32(BAT + 8, (mib === 4 ? first - 6 : mib * MIB) + state, true);
    expect(refused(file, "vhdx", false).message).toMatch(what);
    const disk = await open(file, { readOnly: true }), some = new Uint8Array(512);
    await disk.read(0, some);
    expect(some[0]).toBe(1);
    await disk.close();
    expect(await run(checkVhdx(file))).toMatchObject({ corruptions: 1, leaks: 0 });
  });
});

describe("the log", () => {
  test("is replayed: for reading in memory, for writing into the file", async () => {
    const file = await unreplayed(), before = file.bytes.slice(), reader = await open(file, { readOnly: true }), some = new Uint8Array(MIB);
    expect(await run(vhdx.info(file))).toMatchObject({ dirty: true });
    await reader.read(4 * MIB, some);
    expect(new Set(some)).toEqual(new Set([2]));
    await reader.close();
    expectBytes(file.bytes, before, "the file");
    const writer = await open(file);
    await writer.read(4 * MIB, some);
    expect(new Set(some)).toEqual(new Set([2]));
    await writer.close();
    expect(await run(vhdx.info(file))).toMatchObject({ dirty: false });
    expect(brokenVhdx(file.bytes)).toBeUndefined();
  });

  test("of a file that is shorter than it was is refused", async () => {
    const file = await unreplayed();
    void file.truncate(file.size - MIB);
    expect(refused(file, "vhdx", true).message).toMatch(/truncated/);
  });

  test("may not change headers or itself", async () => {
    for (const to of [64 * KIB, LOG, 2 ** 40]) {
      const file = await unreplayed(), entry = [LOG, LOG + 512 * KIB].find((at) => viewOf(file).getUint32(at + 24, true) === 1) ?? 0;
      viewOf(file).setBigUint64(entry + 64 + 16, BigInt(to), true);
      sealVhdx(file.bytes, entry, 8192);
      expect(refused(file, "vhdx", true).message).toMatch(/which no log may/);
    }
  });

  test("with more zeros than memory should hold is replayed only into the file", async () => {
    const file = await unreplayed(), entry = [LOG, LOG + 512 * KIB].find((at) => viewOf(file).getUint32(at + 24, true) === 1) ?? 0;
    // One descriptor of zeros, 1 GiB behind the blocks, and no data.
    file.bytes.set(new TextEncoder().encode("zero"), entry + 64);
    viewOf(file).setBigUint64(entry + 72, BigInt(1024 * MIB), true);
    viewOf(file).setBigUint64(entry + 80, BigInt(16 * MIB), true);
    viewOf(file).setUint32(entry + 8, 4096, true);
    viewOf(file).setBigUint64(entry + 56, BigInt(1100 * MIB), true);
    sealVhdx(file.bytes, entry, 4096);
    expect(refused(file, "vhdx", true).message).toMatch(/too many zeros for memory/);
  });

  test("that is large is not written, and not replayed", async () => {
    const file = await image();
    void file.truncate(20 * MIB);
    const before = patched(file, ...both(68, 17 * MIB, HEADERS)).bytes.slice();
    expect(refused(file, "vhdx", false).message).toMatch(/can only be read/);
    expectBytes(file.bytes, before, "the file");
    patched(file, ...both(48, 1, HEADERS));
    expect(refused(file, "vhdx", true).message).toMatch(/to be replayed/);
  });

  test("that no entry is valid of is empty, as for QEMU", async () => {
    const file = await unreplayed();
    file.bytes.fill(0, LOG, LOG + MIB);
    expect(await run(checkVhdx(file))).toMatchObject({ corruptions: 0, corruptionsFixed: 0 });
    await (await open(file)).close();
  });

  test("takes more pages than one entry has room for", async () => {
    const file = new MemoryStorage(undefined, "many.vhdx"), page = 512 * MIB, some = new Uint8Array(512);
    void run(createVhdx(file, { size: 130 * page, blockSize: MIB, stateZero: false }));
    let disk = await open(file);
    for (let i = 0; i < 130; i++) await disk.write(i * page + 5 * MIB, new Uint8Array(512).fill(i + 1));
    await disk.flush();
    // What is in the log is in its place, too.
    expectBytes(batAfterReplay(file.bytes), file.bytes.slice(BAT, BAT + 131 * 4096), "the BAT");
    expect(brokenVhdx(file.bytes)).toBeUndefined();
    await disk.close();
    disk = await open(file, { readOnly: true });
    for (let i = 0; i < 130; i++) {
      await disk.read(i * page + 5 * MIB, some);
      expect(some[511]).toBe(i + 1);
    }
    await disk.close();
  });
});

describe("a differencing image", () => {
  const PAIRS = { parent_linkage: "{83ed0ec3-24c8-49a6-a959-5e4bd1288015}", relative_path: ".\\sub\\base.vhdx", absolute_win32_path: "C:\\vm\\base.vhdx" };

  test.each([[PAIRS, "sub/base.vhdx"], [{ relative_path: "..\\up.vhdx" }, "../up.vhdx"], [{ absolute_win32_path: "C:\\vm\\abs.vhdx" }, "abs.vhdx"], [{ volume_path: "\\\\?\\Volume{1}\\vm\\vol.vhdx" }, "vol.vhdx"]])("names its parent: %j", async (pairs, wanted) => {
    const file = empty(8 * MIB, false);
    differencingVhdx(file, pairs);
    expect((await run(vhdx.info(file))).backing).toEqual({ file: wanted, format: "vhdx" });
    expect(refused(file, "vhdx", false).message).toMatch(/can only be read/);
  });

  describe.each(MODES)("%s storage", (mode) => {
    seeded("shows its parent sector by sector", async (random) => {
      const base = empty(6 * MIB, true, "base"), contents = new Uint8Array(8 * MIB), file = empty(8 * MIB, false), writer = await open(base);
      contents.set(random.bytes(6 * MIB));
      await writer.write(0, contents.subarray(0, 6 * MIB));
      await writer.close();
      differencingVhdx(file, PAIRS);
      for (const block of [0, 2, 3, 5, 7]) {
        const data = random.bytes(MIB), bitmap = random.pick([random.bytes(256), new Uint8Array(256), new Uint8Array(256).fill(0xff), undefined]);
        putBlock(file, block, data, bitmap);
        for (let sector = 0; sector < 2048; sector++) {
          if (bitmap === undefined || ((bitmap[sector >> 3] ?? 0) >> (sector & 7)) & 1) contents.set(data.subarray(sector * 512, sector * 512 + 512), block * MIB + sector * 512);
        }
      }
      const disk = await open(inMode(mode, file, random), { readOnly: true, tableCache: 1, gate: { open: () => inMode(mode, base, random) } }), read = new Uint8Array(8 * MIB);
      for (let i = 0; i < 50; i++) {
        const at = random.int(8 * MIB - 5000), some = new Uint8Array(random.int(5000));
        await disk.read(at, some);
        expectBytes(some, contents.subarray(at, at + some.length), `what is read at ${at}`);
      }
      await disk.read(0, read);
      expectBytes(read, contents, "what is read");
      await disk.close();
    });
  });

  test("a locator of countless entries is refused", () => {
    const file = empty(8 * MIB, false);
    differencingVhdx(file, PAIRS);
    viewOf(file).setUint16(METADATA + 128 * KIB + 18, 300, true);
    expect(refused(file, "vhdx", true).message).toMatch(/more than it can have/);
  });

  test("a block in part without its bitmap is an error, not zeros", async () => {
    const file = empty(8 * MIB, false);
    differencingVhdx(file, PAIRS);
    putBlock(file, 0, new Uint8Array(MIB), new Uint8Array(256));
    viewOf(file).setUint32(BAT + 4096 * 8, 0, true);
    const disk = await open(file, { readOnly: true, gate: { open: () => empty(MIB, true, "base") } });
    expect(() => disk.read(0, new Uint8Array(512))).toThrow(/sector bitmap is not/);
    await disk.close();
  });
});

test("options that no image can have are refused by name", () => {
  for (const [values, message] of [
    [{ size: 2 ** 47 }, /max of 64TB/], [{ size: 1, log_size: 0 }, /multiple of 1 MB/], [{ size: 1, log_size: 2 ** 33 }, /smaller than 4 GB/], [{ size: 1, log_size: 17 * MIB }, /at most 16777216/], [{ size: 1, block_size: 3 * MIB }, /power of two/], [{ size: 1, subformat: "x" }, /does not accept value 'x'/],
  ] as const) expect(() => vhdxCreation.plan(values)).toThrow(message);
  expect(() => run(createVhdx(new MemoryStorage(), { size: 1, blockSize: 512 * KIB }))).toThrow(/from 1 MiB/);
});

test("any damage to headers, log, regions, metadata and BAT ends in a DiskError, or in a disk that can be used", async () => {
  const random = new Random(4), { bytes: good } = await unreplayed();
  const usable = await survivals(random, 250, {
    format: "vhdx", good, lengths: [good.length, good.length - MIB, 3 * MIB, 70_000],
    also(file) {
      if (random.chance(0.3)) void run(checkVhdx(file, { repair: "all" }));
    },
    damage(file) {
      for (let i = random.int(3); i >= 0; i--) {
        const entry = random.pick([LOG, LOG + 512 * KIB]), at = random.pick([
          ...HEADERS.flatMap((at) => [at + 8, at + 48, at + 66, at + 68, at + 72]), ...REGIONS.flatMap((at) => [at + 8, at + 16, at + 32, at + 40, at + 64]), METADATA + 8, METADATA + 32, METADATA + 48, METADATA + 52,
          ITEMS, ITEMS + 4, ITEMS + 8, ITEMS + 12, ITEMS + 32, BAT, BAT + 4, BAT + 8, BAT + 32, entry + 8, entry + 12, entry + 16, entry + 24, entry + 48, entry + 56, entry + 64, entry + 72, entry + 80, entry + 4096,
        ]);
        if (at < file.size - 4) viewOf(file).setUint32(at, random.pick([0, 1, 2, 3, 6, 7, 512, 4096, 8192, 65536, MIB, MIB + 6, 5 * MIB + 6, 2 ** 31, 0xffff_ffff]), true);
        if (file.size > entry + 8192) sealVhdx(file.bytes, entry, Math.min(viewOf(file).getUint32(entry + 8, true), 8192));
      }
      if (file.size > MIB && random.chance(0.8)) patched(file);
    },
  });
  expect(usable).toBeGreaterThan(20);
});
