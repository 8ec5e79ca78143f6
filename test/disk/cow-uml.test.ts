import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { createCow } from "../../disk/formats/cow/create.ts";
import { open } from "../../disk/open.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";
import { makeUmlCow, type UmlCow } from "../support/uml-cow.ts";

const SECTOR = 512, KIB = 1024;
const folder = tempFolder(), base = join(folder, "base"), cow = join(folder, "x.cow"), merged = join(folder, "merged");

/** What user-mode Linux's own tool makes of the image and its base. */
function merge(): Uint8Array {
  rmSync(merged, { force: true });
  runTool("uml_moo", ["-b", base, cow, merged]);
  return new Uint8Array(readFileSync(merged));
}

async function read(path: string): Promise<Uint8Array> {
  const disk = await open(FileStorage.open(path), { readOnly: true, gate: { open: () => FileStorage.open(base) } }), bytes = new Uint8Array(disk.size);
  await disk.read(0, bytes);
  await disk.close();
  return bytes;
}

/** A new base of `size` bytes, and what an image above it has of its own. */
function anySectors(random: Random, size: number): Pick<UmlCow, "size" | "backing" | "mtime" | "bitmap" | "data"> {
  writeFileSync(base, random.bytes(size));
  const sectors = Math.ceil(size / SECTOR), bitmap = new Uint8Array(Math.ceil(sectors / 8));
  for (let sector = 0; sector < sectors; sector++) if (random.chance(0.3)) bitmap[sector >> 3] = (bitmap[sector >> 3] ?? 0) | (1 << (sector & 7));
  return { size, backing: base, mtime: Math.floor(statSync(base).mtimeMs / 1000), bitmap, data: random.bytes(sectors * SECTOR) };
}

const anySize = (random: Random): number => random.pick([SECTOR, 4096, 100 * KIB, 999_936, (1 + random.int(3000)) * SECTOR]);

describe.skipIf(!requireTool("uml_moo", "uml_mkcow"))("user-mode Linux's own tools", () => {
  seeded("what uml_mkcow makes is read as its base, whole sectors of it", async (random) => {
    for (const size of [SECTOR, 4096, 1_000_000, 300 * KIB, 1 + random.int(KIB * KIB)]) {
      writeFileSync(base, random.bytes(size));
      runTool("uml_mkcow", ["-f", cow, base]);
      expectBytes(await read(cow), new Uint8Array(readFileSync(base)).subarray(0, size - (size % SECTOR)), `${size} bytes`);
    }
  });

  for (const [name, version, little] of [["1", 1, true], ["2", 2, false], ["3", 3, false]] as const) {
    seeded(`version ${name} is read as uml_moo merges it`, async (random) => {
      for (let round = 0; round < 12; round++) {
        // Of the first two versions it does not read the last bits if they fill no byte, and goes by what stands in its memory there.
        const size = anySize(random), parts = anySectors(random, version < 3 ? Math.ceil(size / 4096) * 4096 : size);
        writeFileSync(cow, makeUmlCow({ ...parts, version, little }));
        expectBytes(await read(cow), merge(), `${parts.size} bytes`);
      }
    });
  }

  seeded("what uml_mkcow made and something wrote to is read as uml_moo merges it", async (random) => {
    const { size, bitmap, data } = anySectors(random, 2000 * SECTOR);
    runTool("uml_mkcow", ["-f", cow, base]);
    const bytes = new Uint8Array(readFileSync(cow));
    bytes.set(bitmap, 8192);
    bytes.set(data, 12288);
    writeFileSync(cow, bytes);
    const now = await read(cow);
    expectBytes(now, merge());
    expect([now.length, Buffer.compare(now, readFileSync(base)) === 0]).toEqual([size, false]);
  });

  seeded("what we write as QEMU's version 2, under a header of version 3, is merged to what we read", async (random) => {
    const size = 1000 * SECTOR, path = join(folder, "ours.cow");
    writeFileSync(base, random.bytes(size));
    const file = FileStorage.open(path, { mode: "create" });
    await run(createCow(file, { size, backingFile: "base" }));
    const disk = await open(file, { format: "cow", gate: { open: () => FileStorage.open(base) } });
    const model = await scribbled(random, disk, new Uint8Array(readFileSync(base)), 40, 40_000);
    await disk.close();
    truncateSync(path, 1536 + size);
    const ours = new Uint8Array(readFileSync(path)), mtime = Math.floor(statSync(base).mtimeMs / 1000);
    writeFileSync(cow, makeUmlCow({ version: 3, size, backing: base, mtime, bitmap: ours.subarray(1056, 1181), data: ours.subarray(1536) }));
    expectBytes(merge(), model);
  });
});
