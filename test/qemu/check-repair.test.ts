import { copyFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { repairDirty } from "../../disk/formats/qcow2/check.ts";
import { readSnapshots } from "../../disk/formats/qcow2/snapshots.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { ourCheck, qemuCheck, qemuIo, RawQcow2, tryGuestHash } from "../support/qcow2.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const CLEAN = { leaks: 0, corruptions: 0, checkErrors: 0 };
const INCOMPATIBLE = 79, DIRTY = 1, CORRUPT = 2;

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("qcow2 repair of what happens", () => {
  const folder = tempFolder();
  const make = (name: string, options = "compat=1.1", size = "8M"): string => {
    const path = join(folder, `${name}.qcow2`);
    runTool("qemu-img", ["create", "-f", "qcow2", "-o", options, path, size]);
    return path;
  };
  const marks = (path: string): number => (new RawQcow2(path).bytes[INCOMPATIBLE] ?? 0) & (DIRTY | CORRUPT);

  test("lazy refcounts and a process that died", async () => {
    const path = make("lazy", "lazy_refcounts=on");
    tryTool("qemu-io", ["-f", "qcow2", "-c", "write -P 1 0 1M", "-c", "write -P 2 3M 200k", "-c", "flush", "-c", "abort", path]);
    expect(marks(path)).toBe(DIRTY);
    const twin = `${path}.twin`;
    copyFileSync(path, twin);
    const looked = await ourCheck(path), qemu = qemuCheck(path);
    expect(looked.corruptions).toBeGreaterThan(0);
    expect(looked).toMatchObject(qemu ?? {});
    const file = FileStorage.open(path, { mode: "write" });
    expect(await run(repairDirty(file))).toMatchObject(CLEAN);
    expect(await run(repairDirty(file))).toBeUndefined();
    file.close();
    expect(marks(path)).toBe(0);
    expect(qemuCheck(path)).toMatchObject(CLEAN);
    qemuCheck(twin, "all");
    expect(tryGuestHash(path)).toBe(tryGuestHash(twin));
  });

  test("a dirty image that cannot be repaired is refused", () => {
    const path = make("hopeless");
    qemuIo(path, "write 0 1M");
    const image = new RawQcow2(path), entry = image.l2Entries[3] ?? 0;
    image.bytes[INCOMPATIBLE] = DIRTY;
    image.set(entry, image.u64(entry) + 512n).save();
    const file = FileStorage.open(path, { mode: "write" });
    expect(() => run(repairDirty(file))).toThrow(/cannot be repaired: ERROR offset=[0-9a-f]+: Data cluster is not properly aligned/);
    file.close();
    expect(marks(path)).toBe(DIRTY);
  });

  test("the corrupt bit goes when nothing is corrupt any more", async () => {
    const path = make("marked"), image = new RawQcow2(path);
    image.bytes[INCOMPATIBLE] = CORRUPT | DIRTY;
    image.save();
    expect(await ourCheck(path)).toMatchObject(CLEAN);
    expect(marks(path)).toBe(CORRUPT | DIRTY);
    await ourCheck(path, "leaks");
    expect(marks(path)).toBe(0);
  });

  test("repairing leaks leaves corruptions alone, and says so", async () => {
    const path = make("leaks");
    qemuIo(path, "write 0 1M");
    const hash = tryGuestHash(path), image = new RawQcow2(path);
    image.setRefcount(7, 3n).setRefcount(8, 0n).save();
    expect(await ourCheck(path, "leaks")).toMatchObject({ leaks: 0, leaksFixed: 1, corruptions: 2, corruptionsFixed: 0 });
    expect(new RawQcow2(path).refcount(8)).toBe(0n);
    expect(await ourCheck(path, "all")).toMatchObject({ ...CLEAN, corruptionsFixed: 1 });
    expect(tryGuestHash(path)).toBe(hash);
  });

  test("bitmaps that lost their autoclear bit leave the header, and their space is free", async () => {
    const path = make("stale");
    qemuIo(path, "write 0 1M");
    runTool("qemu-img", ["bitmap", "--add", path, "b"]);
    const image = new RawQcow2(path);
    image.bytes[95] = 0;
    image.save();
    const leaks = qemuCheck(path)?.leaks;
    expect(leaks).toBeGreaterThan(0);
    expect(await ourCheck(path)).toMatchObject({ leaks, corruptions: 0 });
    expect(await ourCheck(path, "leaks")).toMatchObject({ ...CLEAN, leaksFixed: leaks });
    expect(qemuCheck(path)).toMatchObject(CLEAN);
    expect(tryTool("qemu-img", ["bitmap", "--remove", path, "b"]).status).not.toBe(0);
    expect(runTool("qemu-img", ["info", path])).not.toContain("bitmaps");
  });

  test("a broken bitmap directory: nothing is given back", async () => {
    const path = make("bitmaps");
    runTool("qemu-img", ["bitmap", "--add", path, "b"]);
    const image = new RawQcow2(path), magic = image.bytes.indexOf(Buffer.from("23852875", "hex")), directory = Number(image.u64(magic + 24));
    image.bytes[directory + 16] = 9;
    const before = Buffer.from(image.save() === path ? image.bytes : []);
    const result = await ourCheck(path, "all");
    expect(result.checkErrors).toBeGreaterThan(0);
    expect(new RawQcow2(path).bytes.equals(before)).toBe(true);
  });

  test("a size in the header that does not fit the file costs nothing", async () => {
    const path = make("l1size");
    qemuIo(path, "write 0 1M");
    const image = new RawQcow2(path), before = image.bytes.readUInt32BE(36);
    image.bytes.writeUInt32BE(0x20_0000, 36);
    image.save();
    expect(await ourCheck(path, "all")).toMatchObject({ checkErrors: 1, leaks: 0, leaksFixed: 0, corruptionsFixed: 0 });
    expect(new RawQcow2(path).bytes.equals(image.bytes)).toBe(true);
    image.bytes.writeUInt32BE(before, 36);
    image.save();
    expect(qemuCheck(path)).toMatchObject(CLEAN);
  });

  test("a truncated file whose refcounts are gone is not overwritten", async () => {
    const path = make("truncated");
    qemuIo(path, "write 0 4M");
    const image = new RawQcow2(path);
    image.set(image.blockEntries[0] ?? 0, 0n).save();
    runTool("truncate", ["-s", "1M", path]);
    const before = new RawQcow2(path).bytes, result = await ourCheck(path, "all");
    expect(result.findings.at(-1)?.message).toContain("the file is truncated");
    expect(result.checkErrors).toBe(1);
    expect(new RawQcow2(path).bytes.equals(before)).toBe(true);
  });

  test("snapshot entries without the extra data of version 3 are written anew", async () => {
    const path = make("snapshots");
    qemuIo(path, "write -P 1 0 1M");
    for (const name of ["one", "zwei \u00fc"]) runTool("qemu-img", ["snapshot", "-c", name, path]);
    qemuIo(path, "write -P 2 0 64k");
    const image = new RawQcow2(path), table = Number(image.u64(64)), hashes = ["1", "2"].map((id) => tryGuestHash(path, id));
    // The first entry loses its extra data: its strings and the second entry move up.
    const rest = Buffer.from(image.bytes.subarray(table + 64, table + 512));
    image.bytes.writeUInt32BE(0, table + 36);
    rest.copy(image.bytes, table + 40);
    image.save();
    expect(await ourCheck(path)).toMatchObject({ corruptions: 1, leaks: 0 });
    expect(qemuCheck(path)).toMatchObject({ corruptions: 1, leaks: 0 });
    expect(await ourCheck(path, "all")).toMatchObject({ ...CLEAN, corruptionsFixed: 1 });
    expect(qemuCheck(path)).toMatchObject(CLEAN);
    expect(["1", "2"].map((id) => tryGuestHash(path, id))).toEqual(hashes);
    const file = FileStorage.open(path), fixed = new RawQcow2(path);
    const { snapshots } = await run(readSnapshots(file, { snapshotCount: fixed.u32(60), snapshotsOffset: Number(fixed.u64(64)) }));
    file.close();
    expect(snapshots.map(({ id, name, extraLength, diskSize }) => [id, name, extraLength, diskSize])).toEqual([["1", "one", 24, 8 << 20], ["2", "zwei \u00fc", 24, 8 << 20]]);
  });

  test("the words of QEMU", async () => {
    const path = make("words");
    qemuIo(path, "write 0 1M");
    const image = new RawQcow2(path), entry = image.l2Entries[2] ?? 0;
    image.setRefcount(6, 2n).setRefcount(9, 3n).set(entry, 0n).save();
    const words = (lines: readonly string[]): string[] => lines.filter((line) => /^(ERROR|Leaked|Repairing) (cluster|OFLAG)/.test(line)).toSorted();
    const qemu = words(tryTool("qemu-img", ["check", path]).stderr.split("\n"));
    expect(words((await ourCheck(path)).findings.map(({ message }) => message))).toEqual(qemu);
    expect(qemu.length).toBeGreaterThan(1);
    expect((await ourCheck(path, "leaks")).findings.map(({ message }) => message)).toContain("Repairing cluster 9 refcount=3 reference=1");
  });
});
