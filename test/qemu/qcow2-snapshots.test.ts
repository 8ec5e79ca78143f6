import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { parseSnapshot } from "../../disk/tools/snapshotOption.ts";
import { expectBytes } from "../support/bytes.ts";
import { QemuImage } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const MIB = 2 ** 20;
const folder = tempFolder();
const snapshot = (image: QemuImage, name: string): string => runTool("qemu-img", ["snapshot", "-c", name, image.path]);

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("internal snapshots are read as QEMU reads them", () => {
  for (const [what, options, backed] of [["", "", false], [" above a backing file", "", true], [" of version 2", "compat=0.10,cluster_size=4k", true], [" with small clusters", "cluster_size=512", false], [" with 64-bit refcounts", "refcount_bits=64,cluster_size=2k", true]] as const) {
    seeded(`snapshots${what}`, async (random) => {
      const image = new QemuImage(folder), names = ["one", "two words", "3", "ünï"];
      const base = join(folder, "base.raw");
      if (backed) writeFileSync(base, random.bytes(MIB));
      image.create("2M", options, backed ? ["-b", "base.raw", "-F", "raw"] : []);
      const contents = new Map<string, Uint8Array>();
      for (const name of names) {
        image.scribble(random, 6, 2 * MIB);
        snapshot(image, name);
        contents.set(name, image.contents());
      }
      image.scribble(random, 6, 2 * MIB);
      const before = readFileSync(image.path);
      for (const [name, bytes] of contents) expectBytes(await image.bytes({ snapshot: { name } }), bytes);
      // "3" is the third snapshot's ID and its name; "2" is the second one's ID only.
      expectBytes(await image.bytes({ snapshot: "2" }), image.contents("2"));
      expectBytes(await image.bytes({ snapshot: { id: "4", name: "ünï" } }), image.contents("4"));
      expectBytes(await image.bytes(), image.contents());
      expect(readFileSync(image.path).equals(before)).toBe(true);
    });
  }

  test("each has its own size", async () => {
    const image = new QemuImage(folder);
    image.create("1M", "cluster_size=4k");
    image.io("write -q -P 1 0 1M");
    snapshot(image, "small");
    runTool("qemu-img", ["resize", "-q", image.path, "9M"]);
    image.io("write -q -P 2 512k 8M");
    snapshot(image, "large");
    runTool("qemu-img", ["resize", "-q", "--shrink", image.path, "256k"]);
    expectBytes(await image.bytes({ snapshot: "small" }), new Uint8Array(MIB).fill(1));
    const large = await image.bytes({ snapshot: "large" });
    expect(large.length).toBe(9 * MIB);
    expectBytes(large, new Uint8Array(9 * MIB).fill(1, 0, MIB / 2).fill(2, MIB / 2, 8.5 * MIB));
  });

  test("an ID is looked for before a name", async () => {
    const image = new QemuImage(folder);
    image.create("64k", "");
    image.io("write -q -P 1 0 64k");
    snapshot(image, "2");
    image.io("write -q -P 2 0 64k");
    snapshot(image, "1");
    for (const [choice, byte] of [["1", 1], ["2", 2], [{ name: "1" }, 2], [{ name: "2" }, 1], [{ id: "2", name: "1" }, 2]] as const) {
      expectBytes(await image.bytes({ snapshot: choice }), new Uint8Array(65536).fill(byte));
      if (typeof choice === "string") expectBytes(image.contents(choice), new Uint8Array(65536).fill(byte));
    }
    for (const choice of ["3", "", { id: "1", name: "1" }, { id: "x" }, {}]) await expect(image.bytes({ snapshot: choice })).rejects.toThrow(/Can't find snapshot/);
  });

  test("is for reading only, and only of formats that have them", async () => {
    const image = new QemuImage(folder);
    image.create("64k", "");
    snapshot(image, "one");
    const disk = await image.open({ snapshot: "one", readOnly: true });
    expect(disk.readOnly).toBe(true);
    await disk.close();
    await expect(image.open({ snapshot: "one", readOnly: false })).rejects.toThrow(/can only be read/);
    expect(() => open(new MemoryStorage(new Uint8Array(512)), { format: "raw", snapshot: "one" })).toThrow(/does not support temporarily loading internal snapshots/);
  });

  test("extra data of any length: without a size it is the image's", async () => {
    const image = new QemuImage(folder);
    image.create("64k", "");
    image.io("write -q -P 1 0 64k");
    snapshot(image, "one");
    const bytes = new Uint8Array(512 * 1024);
    bytes.set(readFileSync(image.path));
    const at = Number(new DataView(bytes.buffer).getBigUint64(64));
    for (const extra of [0, 8, 16, 24, 40]) {
      const changed = bytes.slice(), idAndName = bytes.slice(at + 64, at + 68);
      new DataView(changed.buffer).setUint32(at + 36, extra);
      changed.set(idAndName, at + 40 + extra);
      const disk = await open(new MemoryStorage(changed), { snapshot: "one" }), read = new Uint8Array(disk.size);
      await disk.read(0, read);
      expectBytes(read, new Uint8Array(65536).fill(1));
    }
  });

  const OF_64K = [
    ["the L1 table is no cluster", 0, [0, 0, 0, 0, 0, 1, 0, 1], /snapshot 1 \(one\): the L1 table stands at an impossible place/],
    ["the L1 table is beyond all numbers", 0, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0], /impossible place/],
    ["the L1 table is behind the end", 0, [0, 0, 0, 1, 0, 0, 0, 0], /truncated: it ends before its L1 table/],
    ["the L1 table is too long", 8, [0xff, 0xff, 0xff, 0xff], /QEMU's bound/],
    ["the L1 table is too short", 48, [0, 0, 0x10, 0, 0, 0, 0, 0], /too few for a disk/],
    ["there is no L1 table", 8, [0, 0, 0, 0], /too few for a disk/],
    ["the disk is beyond all numbers", 48, [0xff, 0, 0, 0, 0, 0, 0, 0], /larger than disk86 can address/],
    ["too much extra data", 36, [0, 1, 0, 0], /Too much extra metadata/],
  ] as const;
  test.each(OF_64K)("a hostile table: %s", async (_, at, patch, message) => {
    const image = new QemuImage(folder);
    image.create("64k", "");
    snapshot(image, "one");
    const bytes = readFileSync(image.path);
    bytes.set(patch, Number(bytes.readBigUInt64BE(64)) + at);
    const before = process.memoryUsage().rss;
    await expect((async () => await open(new MemoryStorage(new Uint8Array(bytes)), { snapshot: "one" }))()).rejects.toThrow(message);
    expect(process.memoryUsage().rss - before).toBeLessThan(100 * MIB);
  });

  seeded("a damaged image gives its snapshot or a DiskError, nothing else", async (random) => {
    const image = new QemuImage(folder);
    image.create("1M", "cluster_size=512");
    image.scribble(random, 5, MIB);
    snapshot(image, "one");
    image.scribble(random, 5, MIB);
    const whole = new Uint8Array(readFileSync(image.path)), table = Number(new DataView(whole.buffer).getBigUint64(64));
    for (let i = 0; i < 300; i++) {
      const bytes = whole.slice(), near = random.chance(0.5) ? table : 0;
      for (let n = 0; n <= random.int(3); n++) bytes[near + random.int(near === 0 ? 112 : 70)] = random.int(256);
      try {
        const disk = await open(new MemoryStorage(random.chance(0.2) ? bytes.subarray(0, random.int(bytes.length)) : bytes), { snapshot: "1", format: "qcow2", backing: false });
        await disk.read(0, new Uint8Array(Math.min(disk.size, MIB)));
      } catch (error) {
        expect(error).toBeInstanceOf(DiskError);
      }
    }
  });
});

test("what -l of convert names", () => {
  expect(parseSnapshot("one")).toBe("one");
  expect(parseSnapshot("snapshot.id=1,snapshot.name=a,,b")).toEqual({ id: "1", name: "a,b" });
  expect(() => parseSnapshot("snapshot.id=1,foo=3")).toThrow("Invalid parameter 'foo'");
});
