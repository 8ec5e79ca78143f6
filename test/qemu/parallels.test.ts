import { truncateSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createParallels } from "../../disk/formats/parallels/create.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { QemuImage, takeTurns } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one Parallels image", () => {
  describe.each([[1024, 5 * MIB], [64, 5 * MIB], [63, 3 * MIB + 512], [4, 2 * MIB], [256, 12_345]] as const)("clusters of %i KiB, %i bytes", (kib, size) => {
    seeded("made by QEMU", async (random) => {
      const image = new QemuImage(folder, undefined, "parallels");
      image.create(size, `cluster_size=${kib}k`);
      await takeTurns(random, image, Math.ceil(size / 512) * 512, STEPS);
    });

    for (const old of [false, true]) seeded(`made by us, in the ${old ? "old" : "new"} form`, async (random) => {
      const image = new QemuImage(folder, undefined, "parallels"), file = FileStorage.open(image.path, { mode: "create" });
      await run(createParallels(file, { size, clusterSize: kib * KIB, old }));
      file.close();
      await takeTurns(random, image, Math.ceil(size / 512) * 512, STEPS);
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
