import { afterAll, beforeAll, describe, expect } from "vitest";
import { expectBytes } from "../support/bytes.ts";
import { disk86 } from "../support/cli.ts";
import { QemuImage, scribbled } from "../support/qemu-image.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder(), home = process.cwd();
const STEPS = process.env["LONG"] ? 150 : 15;

const WRITABLE = ["", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat", "zeroed_grain=on", "subformat=twoGbMaxExtentSparse,zeroed_grain=on"];

/** QEMU and we take turns on one image; each must find what the other left, and QEMU's check nothing to complain about. */
async function takeTurns(random: Random, image: QemuImage, size: number): Promise<void> {
  for (let turn = 0; turn < 2; turn++) {
    image.scribble(random, STEPS, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    expect(disk.size).toBe(before.length);
    const after = await scribbled(random, disk, before, STEPS);
    await disk.close();
    image.expectSound(after);
  }
}

async function createOurs(image: QemuImage, size: number, options: string): Promise<void> {
  expect(await disk86("create", "-q", "-f", "vmdk", ...(options === "" ? [] : ["-o", options]), image.path, String(size))).toMatchObject({ status: 0, stderr: "" });
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one VMDK", () => {
  beforeAll(() => { process.chdir(folder); });
  afterAll(() => { process.chdir(home); });

  describe.each(WRITABLE)("%s", (options) => {
    describe.each([5 * MIB, 12_345, ...(options === "" || process.env["LONG"] ? [34 * MIB + 512] : [])])("%i bytes", (size) => {
      seeded("made by QEMU", async (random) => {
        const image = new QemuImage(folder, undefined, "vmdk");
        image.create(size, options);
        await takeTurns(random, image, Math.ceil(size / 512) * 512);
      });

      seeded("made by us", async (random) => {
        const image = new QemuImage(folder, undefined, "vmdk");
        await createOurs(image, size, options);
        image.expectSound(new Uint8Array(Math.ceil(size / 512) * 512));
        await takeTurns(random, image, Math.ceil(size / 512) * 512);
      });
    });
  });
});
