import { createHash } from "node:crypto";
import { readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { createVpc } from "../../disk/formats/vpc/create.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { expectFarApart, QemuImage, takeTurns } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";
import { sealAll } from "../support/vpc-inspect.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

/** What QEMU takes the size of the disk for. */
function sizeOf(image: QemuImage): number {
  return (JSON.parse(runTool("qemu-img", ["info", "--output=json", "-f", "vpc", image.path])) as { "virtual-size": number })["virtual-size"];
}

async function made(options: Parameters<typeof createVpc>[1]): Promise<QemuImage> {
  const image = new QemuImage(folder, undefined, "vpc"), file = FileStorage.open(image.path, { mode: "create" });
  await run(createVpc(file, options));
  file.close();
  return image;
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one VHD", () => {
  describe.each([
    ["", 5 * MIB], ["subformat=fixed", 5 * MIB], ["force_size=on", 12_345], ["", 3 * MIB + 512], ["subformat=fixed,force_size=on", 2 * MIB + 700], ["force_size=on", 40 * MIB],
  ] as const)("%s, %i bytes", (options, size) => {
    seeded("made by QEMU", async (random) => {
      const image = new QemuImage(folder, undefined, "vpc");
      image.create(size, options);
      await takeTurns(random, image, sizeOf(image), STEPS);
    });

    for (const blockSize of [2 * MIB, 4 * KIB]) seeded(`made by us, blocks of ${blockSize}`, async (random) => {
      const image = await made({ size, blockSize, fixed: options.includes("fixed"), forceSize: options.includes("force") });
      image.expectSound(new Uint8Array(sizeOf(image)));
      await takeTurns(random, image, sizeOf(image), STEPS);
    });
  });

  test.each([0, 1, 512, 17 * 4 * 512, 35_000, MIB, 10 * MIB, 128 * MIB - 512, 504 * MIB, 505 * MIB, 1024 * MIB, 5e9, 8 * 2 ** 30, 127 * 2 ** 30, 130 * 2 ** 30, 2040 * 2 ** 30])("new images of %i bytes have QEMU's geometry and tables", async (size) => {
    for (const forceSize of [false, true]) {
      const image = await made({ size, forceSize }), theirs = new QemuImage(folder, undefined, "vpc");
      theirs.create(size, forceSize ? "force_size=on" : "");
      const [a, b] = [image, theirs].map(({ path }) => {
        const bytes = readFileSync(path);
        // Time and UUID, and the geometry of no disk at all.
        for (const footer of [0, bytes.length - 512]) {
          bytes.fill(0, footer + 24, footer + 28);
          bytes.fill(0, footer + 64, footer + 84);
          if (size === 0) bytes.fill(0, footer + 56, footer + 60);
        }
        return createHash("sha256").update(bytes).digest("hex");
      });
      expect(a).toBe(b);
      for (const { path } of [image, theirs]) rmSync(path);
    }
  });

  test.each(["qemu", "vpc ", "win ", "d2v ", "qem2", "tap\0", "CTXS", "some"])("an image that %j made has the size that QEMU takes it for", async (creator) => {
    for (const geometry of [[1000, 4, 17], [65535, 16, 255]]) {
      const image = await made({ size: 100 * MIB }), bytes = new Uint8Array(readFileSync(image.path)), view = new DataView(bytes.buffer);
      bytes.set(new TextEncoder().encode(creator), 28);
      view.setBigUint64(48, BigInt(90 * MIB + 512));
      view.setUint16(56, geometry[0] ?? 0);
      bytes.set(geometry.slice(1), 58);
      sealAll(bytes);
      writeFileSync(image.path, bytes);
      const size = sizeOf(image), disk = await image.open();
      expect(disk.size).toBe(size);
      await disk.close();
    }
  });

  test("far apart in a disk of 2040 GiB, with a cache of a few slices", async () => {
    const image = new QemuImage(folder, undefined, "vpc");
    image.create("2040G", "");
    await expectFarApart(image, [0, 700, 1499, 2037, 1, 700.5]);
  });

  test("a file cut off is refused for writing, and its missing part for reading", async () => {
    const image = new QemuImage(folder, undefined, "vpc");
    image.create(5 * MIB, "");
    image.io("write -q -P 1 0 5M");
    truncateSync(image.path, 3 * MIB);
    await expect(image.open()).rejects.toThrow(/truncated/);
    await expect(image.bytes()).rejects.toThrow(/truncated/);
  });

  test("a fixed VHD is not probed, as in QEMU; named, it is one", async () => {
    const image = await made({ size: MIB, fixed: true, forceSize: true });
    expect((JSON.parse(runTool("qemu-img", ["info", "--output=json", image.path])) as Record<string, unknown>)["format"]).toBe("raw");
    expect(sizeOf(image)).toBe(MIB);
    for (const [format, size] of [[undefined, MIB + 512], ["vpc", MIB]] as const) {
      const disk = await image.open({ format, readOnly: true });
      expect(disk.size).toBe(size);
      await disk.close();
    }
  });
});
