import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { checkVmdk } from "../../disk/formats/vmdk/check.ts";
import { createVmdk } from "../../disk/formats/vmdk/create.ts";
import { vmdk } from "../../disk/formats/vmdk/index.ts";
import type { Gate } from "../../disk/gate.ts";
import { open, type OpenOptions } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { MemoryFiles } from "../support/memory-files.ts";
import { withSeed } from "../support/random.ts";
import { buildCowd, buildHosted, buildSeSparse, buildStream, descriptorText, type Grain } from "../support/vmdk-build.ts";
import { contentIdOf, inStep } from "../support/vmdk-inspect.ts";

const SECTOR = 512, GRAIN = 8 * SECTOR, MIB = 2 ** 20;
/** Places of the header's fields, and of the tables in `image()`. */
const AT = { version: 4, flags: 8, capacity: 12, grain: 20, descriptor: 28, descriptorSize: 36, perTable: 44, redundant: 48, directory: 56, overhead: 64, compression: 77 };
const TABLES = { redundant: 21 * SECTOR, redundantTable: 22 * SECTOR, directory: 30 * SECTOR, table: 31 * SECTOR, grains: 40 * SECTOR };

const full = (mark: number, length = GRAIN): Uint8Array => new Uint8Array(length).fill(mark);
const TEXT = descriptorText("monolithicSparse", ['RW 8192 SPARSE "hostile.vmdk"']);

/** 4 MiB in grains of 4 KiB, two tables, the first two grains written. */
function image(damage: (view: DataView) => void = () => undefined): MemoryStorage {
  const bytes = buildHosted({ sectors: 8192, grain: 8, descriptor: TEXT, grains: new Map([[0, full(1)], [1, full(2)]]) });
  damage(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  return new MemoryStorage(bytes, "hostile.vmdk");
}

function openNow(file: MemoryStorage, options: OpenOptions = {}): Disk {
  const disk = open(file, { format: "vmdk", ...options });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

function firstBytes(disk: Disk, ...offsets: number[]): (number | undefined)[] {
  return offsets.map((offset) => {
    const byte = new Uint8Array(1);
    void disk.read(offset, byte);
    return byte[0];
  });
}

const u32 = (at: number, value: number) => (view: DataView): void => { view.setUint32(at, value, true); };
const u64 = (at: number, value: bigint) => (view: DataView): void => { view.setBigUint64(at, value, true); };

describe("a header that cannot be right is refused", () => {
  test.each([
    ["no magic", u32(0, 1), /descriptor/], ["version", u32(AT.version, 4), /version 4/], ["grain 0", u64(AT.grain, 0n), /Invalid granularity/], ["grains of 2 GiB", u64(AT.grain, 2n ** 22n), /Invalid granularity/],
    ["capacity", u64(AT.capacity, 2n ** 60n), /larger than any/], ["capacity beyond 8 PiB", u64(AT.capacity, 2n ** 50n), /8 PiB/], ["capacity that the directory cannot have", u64(AT.capacity, 2n ** 40n), /truncated: it ends before its grain directory/],
    ["no entries", u32(AT.perTable, 0), /grain tables of 0/], ["many entries", u32(AT.perTable, 513), /grain tables of 513/], ["directory in the header", u64(AT.directory, 0n), /impossible place/],
    ["directory behind the end", u64(AT.directory, 2n ** 30n), /truncated/], ["second directory behind the end", u64(AT.redundant, 2n ** 52n), /where none can be/], ["overhead", u64(AT.overhead, 2n ** 20n), /File truncated, expecting at least/],
    ["compression", (view: DataView) => { view.setUint16(AT.compression, 2, true); }, /compression method 2/], ["a footer that is not there", u64(AT.directory, 2n ** 64n - 1n), /Invalid footer/], ["no descriptor", u64(AT.descriptor, 0n), /open the image's descriptor file/],
    ["a descriptor behind the end", u64(AT.descriptor, 2n ** 40n), /the descriptor should stand/], ["directories that overlap", u64(AT.redundant, BigInt(TABLES.directory / SECTOR)), /tables of the image overlap/],
  ] as const)("%s", (_, damage, message) => {
    expect(() => openNow(image(damage))).toThrow(message);
  });

  test.each([["grain directories", 2n ** 33n, 512], ["grain tables of one", 2n ** 24n, 1]])("%s larger than anything makes are not read", async (_, sectors, perTable) => {
    const file = image((view) => { u64(AT.capacity, sectors)(view); u64(AT.grain, 1n)(view); u32(AT.perTable, perTable)(view); });
    await file.truncate(80 * MIB);
    expect(() => openNow(file, { readOnly: true })).toThrow(/disk86's bound/);
    expect((await run(vmdk.info(file))).size).toBe(Number(sectors) * SECTOR);
  });
});

describe("an entry that cannot be right never becomes data", () => {
  test.each([
    ["behind the end", u32(TABLES.table, 0x10_0000), /truncated: a grain should stand/], ["the header", u32(TABLES.table, 0), undefined], ["the descriptor", u32(TABLES.table, 1), /where the image has its tables/],
    ["a directory", u32(TABLES.table, TABLES.directory / SECTOR), /where the image has its tables/], ["before a table", u32(TABLES.table, TABLES.table / SECTOR - 7), /where the image has its tables/], ["a second table", u32(TABLES.table, TABLES.redundantTable / SECTOR), /where the image has its tables/],
    ["a table behind the end", u32(TABLES.directory, 0x10_0000), /truncated: a grain table/], ["a copy behind the end", u32(TABLES.redundant, 0x10_0000), /truncated: the second copy/], ["a copy in the first table", u32(TABLES.redundant, TABLES.table / SECTOR), /overlap/],
    ["two tables in one place", u32(TABLES.directory + 4, TABLES.table / SECTOR), /overlap/],
  ] as const)("%s", (_, damage, message) => {
    const file = image(damage), before = file.bytes.slice(0, TABLES.grains);
    const work = (): void => {
      const disk = openNow(file);
      void disk.write(100, full(9, 200));
      void disk.close();
    };
    if (message === undefined) return work();
    expect(work).toThrow(message);
    expect(Buffer.compare(file.bytes.subarray(600, TABLES.grains), before.subarray(600))).toBe(0);
  });

  test("after a contradiction nothing more is changed; what is sound can be read", () => {
    const disk = openNow(image(u32(TABLES.table, 1)));
    expect(() => disk.discard(0, GRAIN)).toThrow(/where the image has/);
    expect(() => disk.write(3 * MIB, full(9))).toThrow(/where the image has/);
    void disk.close();
    const reader = openNow(image(u32(TABLES.table, 0x10_0000)), { readOnly: true });
    expect(firstBytes(reader, GRAIN, 2 * GRAIN)).toEqual([2, 0]);
    expect(() => firstBytes(reader, 0)).toThrow(/truncated/);
  });

  test("a directory as large as any, full of one table, does not take the memory of as many", () => {
    const entries = 2 ** 22, file = image((view) => { u64(AT.capacity, BigInt(entries) * 512n)(view); u64(AT.grain, 1n)(view); u64(AT.directory, 64n)(view); u64(AT.redundant, BigInt(64 + entries / 128))(view); });
    void file.write(64 * SECTOR, new Uint8Array(Uint32Array.from({ length: 2 * entries }, () => TABLES.table / SECTOR).buffer));
    const before = process.memoryUsage().rss;
    expect(() => openNow(file)).toThrow(/overlap/);
    expect(process.memoryUsage().rss - before).toBeLessThan(200 * MIB);
    void openNow(file, { readOnly: true }).close();
  });

  test("check names each, in QEMU's words", async () => {
    expect(await run(checkVmdk(image()))).toMatchObject({ corruptions: 0, findingCount: 0 });
    const bad = image((view) => { u32(TABLES.table + 4, 0x10_0000)(view); u32(TABLES.table + 8, 0x10_0000)(view); u32(TABLES.directory + 4, 0x10_0000)(view); });
    const { findings, corruptions } = await run(checkVmdk(bad));
    expect(findings.map(({ message }) => message)).toEqual(["ERROR: cluster offset for sector 8 points after EOF", "ERROR: cluster offset for sector 16 points after EOF", "ERROR: could not get cluster_offset for sector 4096"]);
    expect(corruptions).toBe(3);
    expect(() => run(checkVmdk(image(), { repair: "all" }))).toThrow(/cannot be repaired/);
    expect(() => run(checkVmdk(image(), { limits: { reads: 100 } }))).toThrow(/over the limit/);
    expect(() => run(checkVmdk(image(), { signal: { aborted: true } }))).toThrow(/stopped/);
  });
});

/** A descriptor file with these extents, and the files that they name. */
function described(lines: readonly string[], made: Record<string, Uint8Array> = {}, createType = "custom", more: Parameters<typeof descriptorText>[2] = {}): { file: MemoryStorage; files: MemoryFiles } {
  const files = new MemoryFiles("disk.vmdk");
  for (const [name, bytes] of Object.entries(made)) void files.create(name).write(0, bytes);
  return { file: new MemoryStorage(Buffer.from(descriptorText(createType, lines, more), "latin1"), "disk.vmdk"), files };
}

describe("descriptors", () => {
  test.each([
    ["no gate", 'RW 8 FLAT "a" 0', /without leave/, "none"], ["a device", 'RW 8 FLAT "a" 0', /stands on a device/, "fullDevice"], ["FLAT without a place", 'RW 8 FLAT "a"', /Invalid extent line/], ["VMFS with a place", 'RW 8 VMFS "a" 0', /Invalid extent line/],
    ["SPARSE with a place", 'RW 8 SPARSE "a" 0', /Invalid extent line/], ["no file", "RW 8 FLAT", /Invalid extent line/], ["an unknown type", 'RW 8 VMFSRDM "a"', /of type VMFSRDM/], ["NOACCESS", 'NOACCESS 8 FLAT "a" 0', /must not be read/],
    ["itself", 'RW 1 FLAT "disk.vmdk" 0', /the descriptor is to be an extent/], ["an extent that is not sparse", 'RW 8 SPARSE "a"', /is no sparse extent/], ["one too short", 'RW 80000 SPARSE "sparse"', /should have 40960000/], ["more than 8 PiB", 'RW 99999999999999999999 FLAT "a" 0', /Invalid extent line/],
  ])("%s is refused", (_, line, message, createType = "custom") => {
    const { file, files } = described([line], { a: new Uint8Array(MIB), sparse: image().bytes });
    files.add(file);
    const options = createType === "none" ? {} : { gate: files };
    expect(() => openNow(described([line], {}, createType).file, { readOnly: true, ...options })).toThrow(message);
  });

  test.each([
    ["twice the same flat bytes", ['RW 8 FLAT "a" 0', 'RW 8 FLAT "a" 7'], /same place/], ["twice the same sparse extent", ['RW 4096 SPARSE "sparse"', 'RW 4096 SPARSE "sparse"'], /same place/], ["RDONLY", ['RDONLY 8 FLAT "a" 0'], /not RW/], ["ZERO", ['RW 8 FLAT "a" 0', "RW 8 ZERO"], /type ZERO/],
    ["an extent that begins amid a grain", ['RW 3 FLAT "a" 0', 'RW 4096 SPARSE "sparse"'], /begin where a grain does/], ["one that ends amid a grain", ['RW 4092 SPARSE "sparse"', 'RW 8 FLAT "a" 0'], /begin where a grain does/], ["a flat file that is too short", ['RW 4096 FLAT "a" 0'], /truncated/], ["grains of two sizes", ['RW 4096 SPARSE "sparse"', 'RW 4096 SPARSE "other"'], /different sizes/],
    ["version 3", ['RW 4096 SPARSE "tracked"'], /version 3 must be read only/], ["compressed and plain extents", ['RW 8 FLAT "a" 0', 'RW 4096 SPARSE "packed"'], /only some are compressed/],
  ])("%s can only be read", (_, lines, message) => {
    const made = { a: full(5, 64 * SECTOR), sparse: image().bytes, other: buildHosted({ sectors: 4096, grain: 16 }), packed: buildStream({ sectors: 4096, grain: 8 }), tracked: buildHosted({ sectors: 4096, grain: 8, version: 3, grains: new Map([[0, full(5)]]) }) };
    const { file, files } = described(lines, made);
    expect(() => openNow(file, { gate: files })).toThrow(message);
    const disk = openNow(file, { gate: files, readOnly: true });
    expect([1, 5]).toContain(firstBytes(disk, 0)[0]);
  });

  test("extents of every kind, one behind the other, in the words of several programs", () => {
    const made = { "a b.vmdk": full(1, 64 * SECTOR), "s é.vmdk": buildHosted({ sectors: 64, grain: 8, grains: new Map([[7, full(3)]]) }), "c.vmdk": buildCowd({ sectors: 64, grain: 1, grains: new Map([[63, full(4, SECTOR)]]) }), v: full(5, 64 * SECTOR) };
    const lines = ['RW 16 FLAT "a b.vmdk" 8', "  RW 16 ZERO", `RW 64 SPARSE "${Buffer.from("s é.vmdk").toString("latin1")}"`, "# RW 8 FLAT \"comment\" 0", 'RW 64 VMFSSPARSE "c.vmdk"', 'RDONLY 64 VMFS "v"', 'RW 0 FLAT "gone" 0', 'RW 8 FLAT "a b.vmdk" 40 partitionUUID "x"'];
    for (const newline of ["\n", "\r\n"]) {
      const { file, files } = described(lines, made, "custom", { newline }), disk = openNow(file, { gate: files, readOnly: true });
      expect(disk.size).toBe((16 + 16 + 64 * 3 + 8) * SECTOR);
      expect(firstBytes(disk, 0, 16 * SECTOR, 31 * SECTOR, (32 + 55) * SECTOR, (32 + 56) * SECTOR, (32 + 126) * SECTOR, (32 + 127) * SECTOR, 160 * SECTOR, 224 * SECTOR)).toEqual([1, 0, 0, 0, 3, 0, 4, 5, 1]);
    }
  });

  test("a name in another encoding than UTF-8", () => {
    const { file, files } = described(['RW 8 FLAT "caf\xe9.vmdk" 0'], { "café.vmdk": full(7) }), text = Buffer.from(Buffer.from(file.bytes).toString("latin1").replace("UTF-8", "windows-1252"), "latin1");
    expect(firstBytes(openNow(new MemoryStorage(text, "disk.vmdk"), { gate: files, readOnly: true }), 0)).toEqual([7]);
  });

  test("too many extents, and what was opened is closed when another cannot be", () => {
    const many = described(Array.from({ length: 5000 }, () => 'RW 8 FLAT "a" 0'));
    expect(() => openNow(many.file, { gate: many.files })).toThrow(/5000 extents/);
    let opened = 0;
    const gate: Gate = {
      open(name) {
        if (name === "gone") throw new DiskError("not-found", "no such file");
        const storage = new MemoryStorage(new Uint8Array(MIB), name);
        opened++;
        storage.close = () => { opened--; };
        return storage;
      },
    };
    const { file } = described(['RW 8 FLAT "a" 0', 'RW 8 FLAT "b" 0', 'RW 8 FLAT "gone" 0']);
    expect(() => openNow(file, { gate })).toThrow(/no such file/);
    expect(opened).toBe(0);
    const parent = described(['RW 8 FLAT "a" 0'], {}, "custom", { more: 'parentFileNameHint="gone"' });
    expect(() => openNow(parent.file, { gate })).toThrow(/no such file/);
    expect(opened).toBe(0);
  });

  test.each([["no CID", "CID=123a45bc\n"], ["no createType", 'createType="custom"\n']])("%s: no VMDK", (_, line) => {
    const text = descriptorText("custom", []).replace(line, "");
    expect(() => openNow(new MemoryStorage(Buffer.from(text)))).toThrow(/invalid VMDK image descriptor/);
  });

  test.each([["# Disk DescriptorFile\r\n", true], ["# other\n\n version=2\n", false], ["# other\n  \nversion=2\r\n", true], ["version=1\n", true], ["version=4\n", false], ["COWD", true], ["KDMV", true], ["KDM", false], ["#", false]])("probe of %j: %s", (text, wanted) => {
    expect(vmdk.probe(Buffer.from(text))).toBe(wanted);
  });
});

describe("streams as VMware writes them", () => {
  const random = new Random(7), grains = new Map([[0, random.text(GRAIN)], [3, random.bytes(GRAIN)], [600, full(8)], [1023, full(9)]]);
  const build = { sectors: 8192, grain: 8, grains, descriptor: TEXT, version: 3 };

  test.each([["with markers and a footer", {}], ["without either", { bare: true }]])("%s can be read, and not written", (_, how) => {
    const file = new MemoryStorage(buildStream(build, how)), disk = openNow(file, { readOnly: true }), some = new Uint8Array(GRAIN);
    for (const [index, contents] of grains) {
      void disk.read(index * GRAIN, some);
      expect(Buffer.compare(some, contents)).toBe(0);
    }
    expect(firstBytes(disk, GRAIN, 500 * GRAIN, 599 * GRAIN)).toEqual([0, 0, 0]);
    expect(() => openNow(file)).toThrow(/can only be read/);
  });

  test("a last grain that is short, and one that is not", () => {
    for (const length of [3 * SECTOR, GRAIN]) {
      const file = new MemoryStorage(buildStream({ ...build, sectors: 83, grains: new Map([[10, full(6, length)]]) })), some = new Uint8Array(3 * SECTOR);
      void openNow(file, { readOnly: true }).read(80 * SECTOR, some);
      expect(new Set(some)).toEqual(new Set([6]));
    }
  });

  test("damage to a compressed grain is told of", () => {
    const at = 128 * SECTOR;
    for (const [offset, value] of [[8, 0], [8, 0xffff_ffff], [8, 5], [12, 0], [30, 0x5a5a_5a5a]] as const) {
      const file = new MemoryStorage(buildStream(build));
      new DataView(file.bytes.buffer, file.bytes.byteOffset).setUint32(at + offset, value, true);
      expect(() => { void openNow(file, { readOnly: true }).read(0, new Uint8Array(GRAIN)); }).toThrow(/damaged/);
    }
    const stream = buildStream(build);
    expect(() => openNow(new MemoryStorage(stream.slice(0, -SECTOR)), { readOnly: true })).toThrow(/Invalid footer/);
  });
});

describe("a COWD alone", () => {
  const grains = new Map([[5, full(5, SECTOR)], [5000, full(6, SECTOR)]]);

  test("is read and written, and names its parent", async () => {
    const file = new MemoryStorage(buildCowd({ sectors: 9000, grain: 1, grains })), disk = openNow(file);
    expect(firstBytes(disk, 4 * SECTOR, 5 * SECTOR, 5000 * SECTOR)).toEqual([0, 5, 6]);
    void disk.write(8999 * SECTOR, full(7, SECTOR));
    void disk.close();
    // ESX takes new space from there.
    expect(new DataView(file.bytes.buffer, file.bytes.byteOffset).getUint32(28, true)).toBe(file.size / SECTOR);
    expect(firstBytes(openNow(file), 8998 * SECTOR, 8999 * SECTOR)).toEqual([0, 7]);
    const child = new MemoryStorage(buildCowd({ sectors: 9000, grain: 1 }, "parent.vmdk"), "child.vmdk"), files = new MemoryFiles("child.vmdk");
    void files.create("parent.vmdk").write(0, file.bytes);
    expect((await run(vmdk.info(child))).backing).toEqual({ file: "parent.vmdk", format: "vmdk" });
    expect(firstBytes(openNow(child, { gate: files }), 5 * SECTOR)).toEqual([5]);
  });

  test("with too small a directory is refused", () => {
    const bytes = buildCowd({ sectors: 9000, grain: 1 });
    new DataView(bytes.buffer).setUint32(24, 1, true);
    expect(() => openNow(new MemoryStorage(bytes))).toThrow(/has 1 entries; a disk of this size needs 3/);
  });
});

describe("a seSparse extent", () => {
  const bytes = (): Uint8Array<ArrayBuffer> => buildSeSparse({ sectors: 70_000, grain: 8, grains: new Map<number, Grain>([[0, full(1)], [1, full(2)], [3, "zero"], [5000, full(3)]]) });
  const of = (damage: (view: DataView) => void): Disk => {
    const extent = bytes();
    damage(new DataView(extent.buffer));
    const { file, files } = described(['RW 70000 SESPARSE "se"'], { se: extent }, "seSparse");
    return openNow(file, { gate: files, readOnly: true });
  };

  test.each([
    ["magic", u32(0, 1), /magic is missing/], ["version", u32(8, 2), /not known/], ["flags", u32(40, 1), /not known/], ["second header", u32(SECTOR, 1), /second header/], ["journal", u32(SECTOR + 24, 1), /not closed in order/],
    ["too small", u32(16, 60_000), /should have/], ["too large", u64(16, 2n ** 40n), /more than 64 TiB/], ["directory behind the end", u32(128, 2 ** 30), /truncated/], ["second header behind the end", u32(80, 2 ** 30), /truncated/],
  ] as const)("with another %s is refused", (_, damage, message) => {
    expect(() => of(damage)).toThrow(message);
  });

  test("an entry that cannot be right is told of, and others are read", async () => {
    const table = 3 * SECTOR, disk = of((view) => { u32(table + 12, 0x5000_0000)(view); u32(table + 8 * 4, 7)(view); });
    expect(firstBytes(disk, 0, 2 * GRAIN, 3 * GRAIN, 5000 * GRAIN)).toEqual([1, 0, 0, 3]);
    for (const grain of [1, 4]) expect(() => firstBytes(disk, grain * GRAIN)).toThrow(/where none can be/);
    expect(() => firstBytes(of(u32(2 * SECTOR, 9000)), 0)).toThrow(/no table can be/);
    const { file, files } = described(['RW 70000 SESPARSE "se"'], { se: bytes() }, "seSparse");
    expect(await run(checkVmdk(file, { gate: files }))).toMatchObject({ corruptions: 0 });
    u32(table + 12, 0x5000_0000)(new DataView(files.all.get("se")?.bytes.buffer ?? new ArrayBuffer(0)));
    expect(await run(checkVmdk(file, { gate: files }))).toMatchObject({ corruptions: 1, findings: [{ message: "ERROR: could not get cluster_offset for sector 8" }] });
  });
});

describe("the content ID", () => {
  const parentText = (name: string, cid: string): { file: MemoryStorage; files: MemoryFiles } => described(['RW 4096 SPARSE "sparse"'], { sparse: image().bytes, [name]: image().bytes }, "custom", { parentCid: cid, more: `parentFileNameHint="${name}"` });

  test("changes with the first change, and by nothing else", () => {
    const file = image(), before = contentIdOf(file.bytes, SECTOR), id = (): string | undefined => contentIdOf(file.bytes, SECTOR);
    const disk = openNow(file);
    void disk.read(0, new Uint8Array(10));
    void disk.flush();
    expect(id()).toBe(before);
    void disk.write(0, full(3, 10));
    const renewed = id();
    expect([renewed === before, renewed?.length]).toEqual([false, 8]);
    void disk.write(MIB, full(3, 10));
    void disk.close();
    expect(id()).toBe(renewed);
    void openNow(file).close();
    expect(id()).toBe(renewed);
    expect(inStep(file.bytes)).toBe(true);
  });

  test("as short as QEMU wrote it: nothing else of the descriptor moves", () => {
    const text = TEXT.replace("CID=123a45bc", "CID=1a2"), bytes = buildHosted({ sectors: 4096, grain: 8, descriptor: text }), file = new MemoryStorage(bytes);
    void openNow(file).write(0, full(1));
    expect(contentIdOf(file.bytes, SECTOR)).toMatch(/^[0-9a-f]{3}$/);
    expect(Buffer.from(file.bytes.subarray(SECTOR, SECTOR + text.length)).toString("latin1").replace(/CID=[0-9a-f]{3}\n/, "CID=1a2\n")).toBe(text);
  });

  test("of a parent that was changed, or that is no VMDK, refuses the chain", () => {
    const good = parentText("base", "123a45bc"), changed = parentText("base", "99999999"), open8 = (of: typeof good): Disk => openNow(of.file, { gate: of.files });
    expect(firstBytes(open8(good), 0)).toEqual([1]);
    expect(() => open8(changed)).toThrow(/its parent base was changed after.*123a45bc, and should be 99999999/);
    void openNow(changed.file, { gate: changed.files, backing: false }).close();
  });

  test("of a new image on a parent is the parent's", () => {
    const files = new MemoryFiles("top.vmdk"), top = new MemoryStorage(undefined, "top.vmdk");
    void files.create("base.vmdk").write(0, image().bytes);
    void run(createVmdk(top, { size: 3 * MIB, backingFile: "base.vmdk" }, files));
    const disk = openNow(top, { gate: files });
    expect([disk.size, ...firstBytes(disk, 0, GRAIN, 2 * MIB + 5)]).toEqual([3 * MIB, 1, 2, 0]);
    void disk.write(GRAIN + 5, full(9, 3));
    expect(firstBytes(disk, GRAIN + 4, GRAIN + 5, GRAIN + 8)).toEqual([2, 9, 2]);
  });
});

test("options that no image can have are refused by name", () => {
  const make = (options: Parameters<typeof createVmdk>[1], name = "x.vmdk"): void => { void run(createVmdk(new MemoryStorage(), options, new MemoryFiles(name))); };
  for (const [options, message] of [[{ size: -1 }, /is no size/], [{ size: 2 ** 60 }, /8 PiB/], [{ size: 2 ** 52 }, /disk86's bound/], [{ size: 512, toolsVersion: 'a"b' }, /has a quote/], [{ size: 512, subformat: "monolithicFlat", backingFile: "x" }, /can't have backing/]] as const) expect(() => make(options)).toThrow(message);
  expect(() => make({ size: 512 }, 'a"b.vmdk')).toThrow(/can hold the name/);
});

test("a disk of no size", () => {
  for (const subformat of ["monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "streamOptimized"] as const) {
    const file = new MemoryStorage(undefined, "x.vmdk"), files = new MemoryFiles("x.vmdk");
    void run(createVmdk(file, { size: 0, subformat }, files));
    const disk = openNow(file, { gate: files });
    expect(disk.size).toBe(0);
    void disk.close();
  }
});

test("random damage ends in a DiskError or in an answer", () => withSeed(async (random) => {
  let usable = 0;
  const stream = buildStream({ sectors: 4096, grain: 8, descriptor: TEXT, grains: new Map([[0, random.text(GRAIN)], [1, full(4)]]) }), cowd = buildCowd({ sectors: 4096, grain: 1, grains: new Map([[0, full(4, SECTOR)]]) });
  for (let round = 0; round < 600; round++) {
    const bytes = random.pick([image().bytes, stream, cowd]).slice(), view = new DataView(bytes.buffer);
    for (let i = random.int(4); i >= 0; i--) {
      const at = random.pick([random.int(80), SECTOR + random.int(TEXT.length), TABLES.redundant, TABLES.directory + 4 * random.int(2), TABLES.table + 4 * random.int(8), 2048 + 4 * random.int(8), bytes.length - 1024 + random.int(80)]);
      if (random.chance(0.5)) view.setUint8(at, random.int(256));
      else view.setUint32(Math.min(at, bytes.length - 4), random.pick([0, 1, 2, 8, 27, 32, 40, 512, 4096, 2 ** 31, 2 ** 32 - 1]), true);
    }
    const file = new MemoryStorage(bytes.subarray(0, random.pick([bytes.length, bytes.length, 2000, 20_000])));
    try {
      await run(vmdk.info(file));
      const disk = openNow(file, { readOnly: random.chance(0.5) });
      if (disk.size > 100 * MIB || disk.chain[0].blockSize > MIB) continue;
      void disk.read(0, new Uint8Array(Math.min(disk.size, MIB)));
      if (!disk.readOnly && disk.size >= MIB) void disk.write(GRAIN + 100, full(7, 5000));
      void disk.close();
      usable++;
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
    }
  }
  expect(usable).toBeGreaterThan(50);
}));
