import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { inflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { deflateNode } from "../../disk/codecs/deflate.node.ts";
import { deflatePako, setDeflate } from "../../disk/codecs/deflate.ts";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { useNodeCodecs } from "../../disk/codecs/host.node.ts";
import { inflatePako, setInflate } from "../../disk/codecs/inflate.ts";
import { DelayedStorage } from "../../disk/filters/delayed.ts";
import { FaultStorage } from "../../disk/filters/fault.ts";
import { createQcow2, type Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import { open } from "../../disk/open.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { all, type Storage } from "../../disk/storage.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB, C = 64 * KIB;
const folder = tempFolder();

async function fresh(options: Partial<Qcow2CreateOptions> = {}): Promise<{ file: MemoryStorage; disk: Disk }> {
  const file = new MemoryStorage();
  await run(createQcow2(file, { size: MIB + 1536, ...options }));
  return { file, disk: await open(file) };
}

async function packedAt(disk: Disk, offset: number): Promise<{ storage: Storage; offset: number; packedLength: number }> {
  const { extent } = await run(disk.status(offset, 1));
  if (extent.kind !== "packed") throw new Error(`block ${offset} is ${extent.kind}`);
  return extent;
}

/** Shares less with every other. */
const text = (length: number, mark: number): Uint8Array => Uint8Array.from({ length }, (_, i) => ((i >> 5) * mark) % 251);

test("several blocks share a host cluster, one behind the other to the byte; what does not shrink is stored plainly", async () => {
  const { disk } = await fresh(), random = new Random(1).bytes(C);
  await disk.writePacked(0, text(3 * C, 3));
  await disk.writePacked(3 * C, random);
  const places = await Promise.all([0, 1, 2].map((i) => packedAt(disk, i * C)));
  expect(new Set(places.map(({ offset }) => Math.floor(offset / C))).size).toBe(1);
  expect(places.map(({ offset }) => offset)).toEqual(places.map(({ offset }) => offset).sort((a, b) => a - b));
  expect(places[1]?.offset).toBeLessThanOrEqual((places[0]?.offset ?? 0) + (places[0]?.packedLength ?? 0));
  expect((await run(disk.status(3 * C, 1))).extent).toMatchObject({ kind: "data", writable: true });
});

test("only whole blocks, but for the disk's last; only where the format can", async () => {
  const { disk } = await fresh();
  const refused = expect.objectContaining({ kind: "invalid-argument", message: expect.stringContaining("whole blocks of 65536 bytes") });
  for (const [offset, length] of [[512, C], [0, 100], [0, C + 1], [MIB, 512]] as const) expect(() => disk.writePacked(offset, new Uint8Array(length))).toThrow(refused);
  expect(() => disk.writePacked(MIB, new Uint8Array(C))).toThrow(/the disk has/);
  await disk.writePacked(MIB, text(1536, 5));
  const end = new Uint8Array(1536);
  await disk.read(MIB, end);
  expectBytes(end, text(1536, 5));
  const raw = await open(new MemoryStorage(new Uint8Array(MIB)), { format: "raw" });
  expect([disk.packs, raw.packs]).toEqual([true, false]);
  expect(() => raw.writePacked(0, new Uint8Array(C))).toThrow(expect.objectContaining({ kind: "unsupported" }));
  const fixed = await open(new MemoryStorage(new Uint8Array(MIB)), { format: "raw", readOnly: true });
  expect(() => fixed.writePacked(0, new Uint8Array(C))).toThrow(/read-only/);
});

test("what was unpacked before is not seen again where other bytes took its place", async () => {
  const { disk } = await fresh({ refcountBits: 1 }), into = new Uint8Array(100);
  for (let mark = 1; mark < 6; mark++) {
    await disk.writePacked(0, text(C, mark));
    await disk.read(5000, into);
    expectBytes(into, text(C, mark).subarray(5000, 5100));
    await disk.discard(0, C);
    await disk.flush();
  }
});

test("blocks of one call and of many calls are stored in order, however long each takes to pack", async () => {
  setDeflate(async (block, form) => {
    await new Promise((resolve) => { setTimeout(resolve, (block[0] ?? 0) % 7); });
    return deflatePako(block, form);
  });
  try {
    const { disk } = await fresh({ clusterSize: 4096 });
    const pending = Array.from({ length: 30 }, (_, i) => disk.writePacked(i * 8192, text(8192, (i * 11) % 13 + 2).fill((i * 5) % 7, 0, 1)));
    expect(pending.every((one) => one instanceof Promise)).toBe(true);
    await all(pending);
    const at = await Promise.all(Array.from({ length: 60 }, async (_, i) => (await packedAt(disk, i * 4096)).offset));
    expect(at).toEqual([...at].sort((a, b) => a - b));
    await disk.close();
  } finally {
    setDeflate(deflatePako);
  }
});

test("on threads whole compressed clusters read the same, and damage is found", async () => {
  const { file, disk } = await fresh(), plain = new Random(2).text(MIB);
  await disk.writePacked(0, plain);
  const { offset } = await packedAt(disk, 5 * C);
  await disk.close();
  useNodeCodecs();
  try {
    const again = await open(file, { threads: true, readOnly: true }), now = new Uint8Array(MIB);
    const reading = again.read(0, now);
    expect(reading).toBeInstanceOf(Promise);
    await reading;
    expectBytes(now, plain);
    file.bytes.fill(0xff, offset, offset + 40);
    await expect((async () => again.read(0, now))()).rejects.toThrow(expect.objectContaining({ kind: "corrupt" }));
    await again.close();
  } finally {
    setDeflate(deflatePako);
    setInflate(inflatePako);
  }
});

seeded("a failing storage or encoder fails the call, changes no other block, and leaves nothing that check minds", async (random) => {
  for (let round = 0; round < 30; round++) {
    const file = new MemoryStorage();
    await run(createQcow2(file, { size: 512 * KIB, clusterSize: 4096, refcountBits: random.pick([1, 16]) }));
    const faulty = new FaultStorage(file, undefined), disk = await open(random.chance(0.5) ? faulty : new DelayedStorage(faulty, {}));
    const before = random.text(512 * KIB);
    await disk.writePacked(0, before);
    const at = random.int(100) * 4096;
    let left = random.int(4);
    faulty.plan = ({ op }) => (op === "write" && left-- === 0 ? new DiskError("io", "injected") : undefined);
    await expect((async () => disk.writePacked(at, random.text(16384)))()).rejects.toThrow(/injected/);
    faulty.plan = undefined;
    await disk.close();
    const path = join(folder, "faulty.qcow2"), again = await open(file), now = new Uint8Array(512 * KIB);
    writeFileSync(path, file.bytes);
    if (requireTool("qemu-img")) runTool("qemu-img", ["check", "-q", path]);
    await again.read(0, now);
    expectBytes(now.subarray(0, at), before.subarray(0, at));
    expectBytes(now.subarray(at + 16384), before.subarray(at + 16384));
  }
});

describe.skipIf(!requireTool("qemu-img"))("beside qemu-img convert -c", () => {
  test.each(["zlib, pako", "zlib, node"])("%s: what QEMU packs, we pack", async (encoder) => {
    const plain = new Uint8Array(40 * C);
    for (let i = 0; i < 40; i++) plain.set(text(C, i * 3 + 1), i * C);
    writeFileSync(join(folder, "plain"), plain);
    runTool("qemu-img", ["convert", "-c", "-f", "raw", "-O", "qcow2", join(folder, "plain"), join(folder, "theirs.qcow2")]);
    if (encoder === "zlib, node") setDeflate(deflateNode);
    try {
      const file = FileStorage.open(join(folder, "ours.qcow2"), { mode: "replace" });
      await run(createQcow2(file, { size: plain.length }));
      const ours = await open(file), theirs = await open(FileStorage.open(join(folder, "theirs.qcow2")));
      await ours.writePacked(0, plain);
      if (encoder === "zlib, pako") {
        for (let i = 0; i < 40; i++) expectBytes(await packedBytes(ours, i * C), await packedBytes(theirs, i * C), `block ${i}`);
      }
      await ours.close();
      await theirs.close();
    } finally {
      setDeflate(deflatePako);
    }
    runTool("qemu-img", ["check", "-q", join(folder, "ours.qcow2")]);
    runTool("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", join(folder, "ours.qcow2"), join(folder, "plain")]);
  });
});

/** The compressed stream without what follows it in its last sector. */
async function packedBytes(disk: Disk, at: number): Promise<Uint8Array> {
  const { storage, offset, packedLength } = await packedAt(disk, at), bytes = new Uint8Array(packedLength);
  await storage.read(offset, bytes);
  const { engine } = inflateRawSync(bytes, { info: true }) as unknown as { engine: { bytesWritten: number } };
  return bytes.subarray(0, engine.bytesWritten);
}
