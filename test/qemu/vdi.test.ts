import { truncateSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createVdi } from "../../disk/formats/vdi/create.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { expectFarApart, QemuImage, takeTurns } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const MIB = 2 ** 20;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one VDI", () => {
  describe.each([["", 5 * MIB], ["static=on", 5 * MIB], ["", 12_345], ["", 3 * MIB + 512], ["static=on", 2 * MIB + 700], ["", 40 * MIB]] as const)("%s, %i bytes", (options, size) => {
    seeded("made by QEMU", async (random) => {
      const image = new QemuImage(folder, undefined, "vdi");
      image.create(size, options);
      await takeTurns(random, image, Math.ceil(size / 512) * 512, STEPS);
    });

    seeded("made by us", async (random) => {
      const image = new QemuImage(folder, undefined, "vdi"), file = FileStorage.open(image.path, { mode: "create" });
      await run(createVdi(file, { size, fixed: options !== "" }));
      file.close();
      image.expectSound(new Uint8Array(Math.ceil(size / 512) * 512));
      await takeTurns(random, image, Math.ceil(size / 512) * 512, STEPS);
    });
  });

  test("far apart in a disk of 3 TiB, with a cache of a few slices", async () => {
    const image = new QemuImage(folder, undefined, "vdi");
    image.create("3T", "");
    await expectFarApart(image, [0, 700, 1499, 2047, 2998, 1, 700.5]);
    image.expectSound();
  });

  test("a file cut off is refused for writing, and its missing part for reading", async () => {
    const image = new QemuImage(folder, undefined, "vdi");
    image.create(5 * MIB, "");
    image.io("write -q -P 1 0 3M");
    truncateSync(image.path, 2 * MIB);
    await expect(image.open()).rejects.toThrow(/truncated/);
    await expect(image.bytes()).rejects.toThrow(/truncated/);
  });
});
