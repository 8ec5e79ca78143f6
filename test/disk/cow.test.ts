import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { cow } from "../../disk/formats/cow/index.ts";
import { createCow, cowCreation } from "../../disk/formats/cow/create.ts";
import { open, type OpenOptions } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { cowContents } from "../support/cow-inspect.ts";
import { makeUmlCow } from "../support/uml-cow.ts";

const FIXTURES = join(import.meta.dirname, "../fixtures/cow");
const fixture = (name: string): Uint8Array => new Uint8Array(gunzipSync(readFileSync(join(FIXTURES, `${name}.gz`))));
const BASE = fixture("base1000.raw");
const MANIFEST = readFileSync(join(FIXTURES, "MANIFEST"), "utf8").trim().split("\n").map((line) => {
  const [, sum = "", name = "", size = "", file = "", backing = ""] = /^(\w+) +(\S+) +virtual=(\d+) file=(\d+) backing=(\S*)/.exec(line) ?? [];
  return { sum, name, size: Number(size), file: Number(file), backing };
});

function openNow(bytes: Uint8Array, options: OpenOptions = {}): Disk {
  const disk = open(new MemoryStorage(bytes, "top.cow"), { gate: { open: () => new MemoryStorage(BASE.slice(), "base1000.raw") }, ...options });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

function contents(disk: Disk): Uint8Array {
  const bytes = new Uint8Array(disk.size);
  void disk.read(0, bytes);
  return bytes;
}

const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

describe.each(MANIFEST)("$name, which QEMU 0.14 wrote", ({ name, sum, size, file, backing }) => {
  test("reads as QEMU 0.14 read it, and tells of itself", async () => {
    const bytes = fixture(name), disk = openNow(bytes, { readOnly: true });
    expect([bytes.length, disk.size, disk.chain[0].format]).toEqual([file, size, "cow"]);
    expect(sha256(contents(disk))).toBe(sum);
    const info = await run(cow.info(new MemoryStorage(bytes)));
    expect({ size: info.size, backing: info.backing?.file ?? "" }).toEqual({ size, backing });
  });

  test("is written", () => {
    const base = backing === "" ? new Uint8Array(0) : BASE;
    const file = new MemoryStorage(fixture(name)), first = openNow(file.bytes), before = contents(first), some = new Uint8Array(3000).fill(7);
    const disk = open(file, { gate: { open: () => new MemoryStorage(BASE.slice(), "base") } }) as Disk;
    void disk.write(100, some);
    void disk.write(before.length - 100, some.subarray(0, 100));
    before.set(some, 100);
    before.set(some.subarray(0, 100), before.length - 100);
    void disk.close();
    expect(sha256(cowContents(file.bytes, base))).toBe(sha256(before));
  });
});

test("the image that we make is the one that QEMU 0.14 made, byte for byte", async () => {
  const file = new MemoryStorage();
  await run(createCow(file, { size: 2 ** 21 }));
  expect(Buffer.compare(file.bytes, fixture("empty.cow"))).toBe(0);
});

/** The overlay as user-mode Linux has it: another header, the same sectors. */
function uml(version: 1 | 2 | 3, little = false, padded = false): Uint8Array {
  const from = fixture("overlay.cow");
  return makeUmlCow({ version, little, padded, size: 1000 * 512, backing: "base1000.raw", mtime: 77, bitmap: from.subarray(1056, 1056 + 125), data: from.subarray(1536) });
}

describe.each([["1, little-endian", uml(1, true)], ["1, big-endian", uml(1)], ["2", uml(2)], ["3", uml(3)], ["3, padded", uml(3, false, true)]])("user-mode Linux's version %s", (_, bytes) => {
  test("reads as QEMU's image of the same sectors, and is not written", async () => {
    expect(sha256(contents(openNow(bytes, { readOnly: true })))).toBe(MANIFEST.find(({ name }) => name === "overlay.cow")?.sum);
    expect(() => openNow(bytes)).toThrow(/user-mode Linux's own version .* only reads/);
    expect((await run(cow.info(new MemoryStorage(bytes)))).specific?.["data"]).toMatchObject({ "backing-mtime": 77 });
  });
});

describe("what cannot be right is refused", () => {
  const damaged = (change: (view: DataView) => void, bytes = fixture("overlay.cow")): Uint8Array => {
    change(new DataView(bytes.buffer, bytes.byteOffset));
    return bytes;
  };
  test.each([
    ["another version", () => damaged((view) => { view.setUint32(4, 4); }), /cow version 4/],
    ["no magic", () => damaged((view) => { view.setUint32(0, 0); }), /the magic is missing/],
    ["a size over every bound", () => damaged((view) => { view.setBigUint64(1040, 2n ** 63n); }), /larger than any offset or size/],
    ["a size whose data no offset reaches", () => damaged((view) => { view.setBigUint64(1040, 2n ** 53n - 512n); }), /does not fit any file/],
    ["a bitmap behind the end", () => fixture("overlay.cow").slice(0, 1100), /truncated/],
    ["a name that is not UTF-8", () => damaged((view) => { view.setUint8(8, 0xff); }), /not valid UTF-8/],
    ["impossible sectors", () => damaged((view) => { view.setUint32(20, 3); }, uml(3)), /sectors of 3 bytes/],
    ["an impossible alignment", () => damaged((view) => { view.setUint32(24, 100); }, uml(3)), /the alignment 100/],
    ["a bitmap whose last byte is the data's", () => damaged((view) => { view.setBigUint64(268, BigInt((232 * 8 + 1) * 512), true); }, uml(1, true)), /which of the last sectors/],
  ] as const)("%s", (_, bytes, message) => {
    expect(() => openNow(bytes(), { format: "cow", readOnly: true })).toThrow(message);
  });
});

test("options that no image can have are refused before anything is touched", () => {
  for (const [values, message] of [
    [{ size: 512, backing_file: "x".repeat(1024) }, /name is too long/], [{ size: 2 ** 60 }, /4 PiB/], [{ size: 512, backing_fmt: "raw" }, /without backing file/],
    [{ size: 512, backing_mtime: 2 ** 40 }, /32 bits/],
  ] as const) expect(() => cowCreation.plan(values)).toThrow(message);
});

test("a bitmap larger than the cache is read, changed and written back piece by piece", () => {
  const size = 2 ** 30, file = new MemoryStorage();
  void run(createCow(file, { size }));
  const disk = open(file, { tableCache: 1 }) as Disk, at = (i: number): number => ((i * 37) % 64) * 2 ** 24 / 16 + 2 ** 24 - 700;
  for (let i = 0; i < 64; i++) void disk.write(at(i), new Uint8Array(1400).fill(i + 1));
  void disk.close();
  const again = open(file, { tableCache: 1 }) as Disk, bytes = new Uint8Array(1400);
  for (let i = 0; i < 64; i++) {
    void again.read(at(i), bytes);
    expect(bytes.every((byte) => byte === i + 1)).toBe(true);
  }
});
