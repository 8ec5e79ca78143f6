import { truncateSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createParallels } from "../../disk/formats/parallels/create.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

/** QEMU and we take turns on one image; each must find what the other left, and QEMU's check nothing to complain about. */
async function takeTurns(random: Random, image: QemuImage, size: number): Promise<void> {
  for (let turn = 0; turn < 3; turn++) {
    image.scribble(random, STEPS, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    expect(disk.size).toBe(before.length);
    const after = await scribbled(random, disk, before, STEPS);
    await disk.close();
    image.expectSound(after);
  }
  expectBytes(await image.bytes(), image.contents(), "what we read in the end");
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one Parallels image", () => {
  describe.each([[1024, 5 * MIB], [64, 5 * MIB], [63, 3 * MIB + 512], [4, 2 * MIB], [256, 12_345]] as const)("clusters of %i KiB, %i bytes", (kib, size) => {
    seeded("made by QEMU", async (random) => {
      const image = new QemuImage(folder, undefined, "parallels");
      image.create(size, `cluster_size=${kib}k`);
      await takeTurns(random, image, Math.ceil(size / 512) * 512);
    });

    for (const old of [false, true]) seeded(`made by us, in the ${old ? "old" : "new"} form`, async (random) => {
      const image = new QemuImage(folder, undefined, "parallels"), file = FileStorage.open(image.path, { mode: "create" });
      await run(createParallels(file, { size, clusterSize: kib * KIB, old }));
      file.close();
      await takeTurns(random, image, Math.ceil(size / 512) * 512);
    });
  });

  test("a file cut off is refused for writing, and its missing part for reading", async () => {
    const image = new QemuImage(folder, undefined, "parallels");
    image.create(5 * MIB, "");
    image.io("write -q -P 1 0 3M");
    truncateSync(image.path, 2 * MIB);
    await expect(image.open()).rejects.toThrow(/outside the image/);
    await expect(image.bytes()).rejects.toThrow(/truncated/);
  });
});
