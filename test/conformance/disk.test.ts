import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { all } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { expectBytes } from "../support/bytes.ts";
import { MemoryFiles } from "../support/memory-files.ts";
import { anyChange, anyRange, ModelDisk } from "../support/model.ts";
import { inMode, MODES, type Mode } from "../support/modes.ts";
import { expectSoundImage } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";
import { openRow, ROWS, type Row } from "./rows.ts";

const KIB = 1024, MIB = 1024 * KIB;
const qemu = requireTool("qemu-img");
const folder = tempFolder();

interface Setup { readonly file: MemoryStorage; readonly base: MemoryStorage; readonly baseContents: Uint8Array; readonly files: MemoryFiles }

/** An empty image, above a base of `baseSize` bytes if that is given: a raw one, unless the format wants its own. */
async function make(row: Row, size: number, random: Random, mode: Mode, baseSize?: number): Promise<Setup> {
  const baseContents = random.bytes(baseSize ?? 0), base = new MemoryStorage(row.asBase?.(baseContents) ?? baseContents.slice(), join(folder, "base.raw"));
  const file = new MemoryStorage(undefined, join(folder, "top"));
  const files = new MemoryFiles(file.name, (one) => inMode(mode, one, random));
  files.add(base);
  await row.create(file, size, baseSize === undefined ? undefined : { file: "base.raw", format: "raw" }, files);
  return { file, base, baseContents, files };
}

/** The real tools' verdict on what we wrote. */
function judge(row: Row, { file, baseContents, files }: Setup, model: ModelDisk): void {
  if (row.judge !== undefined) expectBytes(row.judge(file.bytes, baseContents), model.bytes, "what stands in the file");
  if (!qemu || !row.judged) return;
  writeFileSync(file.name, file.bytes);
  for (const { name, bytes } of files.all.values()) writeFileSync(name, bytes);
  writeFileSync(join(folder, "model.raw"), model.bytes);
  expectSoundImage(file.name, row.format);
  runTool("qemu-img", ["compare", "-f", row.format, "-F", "raw", file.name, join(folder, "model.raw")]);
}

async function work(random: Random, model: ModelDisk, rounds: number): Promise<void> {
  for (let round = 0; round < rounds; round++) {
    const batch = Array.from({ length: random.pick([1, 1, 4, 12]) }, () => anyChange(random, model, 300 * KIB));
    await all(batch);
    const { offset, length } = anyRange(random, model.bytes.length);
    await model.compare(offset, length);
    if (random.chance(0.2)) await model.discard(...Object.values(anyRange(random, model.bytes.length, MIB)) as [number, number]);
    if (random.chance(0.3)) await model.disk.flush();
  }
}

describe.each(ROWS)("$name", (row) => {
  describe.each(MODES)("%s storage", (mode) => {
    const reopen = (setup: Setup, random: Random): Promise<Disk> => openRow(row, inMode(mode, setup.file, random), setup.files);

    seeded("holds what was written, zeroed and discarded, through reopening; qemu-img agrees", async (random) => {
      const setup = await make(row, 3 * MIB + 512, random, mode);
      let model = new ModelDisk(await reopen(setup, random));
      for (let session = 0; session < 3; session++) {
        await work(random, model, 12);
        await model.compare();
        await model.disk.close();
        model = model.on(await reopen(setup, random));
        await model.compare();
      }
      await model.disk.close();
      judge(row, setup, model);
    });

    if (row.resizes) seeded("resizes: what is new reads as zeros, what was cut off is gone", async (random) => {
      const setup = await make(row, MIB, random, mode);
      const model = new ModelDisk(await reopen(setup, random));
      for (const size of [5 * MIB, 700 * KIB + 512, 2 * MIB + 512, 0, 9 * MIB]) {
        await model.truncate(size);
        await model.compare();
        if (size > 0) await work(random, model, 3);
      }
      await model.disk.close();
      judge(row, setup, model);
    });

    if (!row.resizes) {
      seeded("refuses another size by name, and changes nothing", async (random) => {
        const setup = await make(row, MIB + 512, random, mode), model = new ModelDisk(await reopen(setup, random));
        await work(random, model, 3);
        for (const size of [5 * MIB, MIB, 0]) await expect((async () => { await model.disk.truncate(size); })()).rejects.toThrow(/cannot be resized/);
        await model.compare();
        await model.disk.close();
        judge(row, setup, model);
      });
    }

    if (!row.backs) return;

    describe.each([["shorter", MIB - 1536], ["longer", 4 * MIB]])("above a %s base", (_, baseSize) => {
      seeded("copies on write, never touches the base, and hides it where it was zeroed", async (random) => {
        const setup = await make(row, 2 * MIB + 512, random, mode, baseSize);
        const before = setup.base.bytes.slice();
        let model = new ModelDisk(await reopen(setup, random), setup.baseContents);
        await model.compare();
        await work(random, model, 10);
        if (row.resizes) await model.truncate(3 * MIB);
        await model.compare();
        await work(random, model, 4);
        await model.disk.close();
        model = model.on(await reopen(setup, random));
        await model.compare();
        await model.disk.close();
        expect(Buffer.compare(setup.base.bytes, before)).toBe(0);
        judge(row, setup, model);
      });
    });
  });

  test("a synchronous storage never makes a promise, from open to close", async () => {
    const file = new MemoryStorage(), files = new MemoryFiles("image");
    expect(row.create(file, 3 * MIB, undefined, files)).toBeUndefined();
    const disk = await openRow(row, file, files), some = new Uint8Array(200 * KIB).fill(7);
    const answers = [
      disk.write(0, some), disk.write(100, some), disk.read(50, some), disk.zero(4096, 70_000), disk.zero(100, 1000, true),
      disk.write(5000, some.subarray(0, 300)), disk.discard(0, MIB), disk.flush(), ...(row.resizes ? [disk.truncate(5 * MIB), disk.write(4 * MIB, some)] : []), disk.flush(), disk.close(),
    ];
    expect(answers.filter((answer) => answer !== undefined)).toEqual([]);
  });

  test("refuses what does not fit, and everything after close", async () => {
    const file = new MemoryStorage(), files = new MemoryFiles("image");
    await row.create(file, MIB, undefined, files);
    const disk = await openRow(row, file, files);
    for (const [offset, length] of [[MIB, 1], [MIB - 1, 2], [-1, 1], [0.5, 1], [Number.MAX_SAFE_INTEGER, 512]] as const) {
      expect(() => disk.write(offset, new Uint8Array(length))).toThrow(/the disk has 1048576/);
    }
    const past = new Uint8Array(8).fill(1);
    await disk.read(MIB - 4, past);
    expect([...past]).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    await disk.close();
    expect(() => disk.read(0, past)).toThrow(/after close/);
    expect(() => disk.write(0, past)).toThrow(/after close/);
  });
});
