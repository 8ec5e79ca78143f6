import { createHash } from "node:crypto";
import { closeSync, copyFileSync, openSync, readFileSync, readSync, truncateSync, writeSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { checkVhdx } from "../../disk/formats/vhdx/check.ts";
import { createVhdx } from "../../disk/formats/vhdx/create.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { run } from "../../disk/task.ts";
import { expectBytes } from "../support/bytes.ts";
import { expectFarApart, QemuImage, takeTurns } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB, GIB = 1024 * MIB;
const folder = tempFolder();
const STEPS = process.env["LONG"] ? 150 : 25;

async function made(options: Parameters<typeof createVhdx>[1]): Promise<QemuImage> {
  const image = new QemuImage(folder, undefined, "vhdx"), file = FileStorage.open(image.path, { mode: "create" });
  await run(createVhdx(file, options));
  file.close();
  return image;
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("QEMU and we take turns on one VHDX", () => {
  describe.each([
    ["", 5 * MIB], ["subformat=fixed", 5 * MIB], ["subformat=fixed,block_state_zero=off", 5 * MIB], ["block_size=1M", 12_345], ["block_size=1M,block_state_zero=off", 3 * MIB + 512], ["log_size=3M,block_size=2M", 9 * MIB],
  ] as const)("%s, %i bytes", (options, size) => {
    seeded("made by QEMU", async (random) => {
      const image = new QemuImage(folder, undefined, "vhdx");
      image.create(size, options);
      await takeTurns(random, image, Math.ceil(size / 512) * 512, STEPS);
    });

    seeded("made by us", async (random) => {
      const block = /block_size=(\d)M/.exec(options)?.[1], log = /log_size=(\d)M/.exec(options)?.[1];
      const image = await made({ size, fixed: options.includes("fixed"), stateZero: !options.includes("zero=off"), blockSize: Number(block ?? 0) * MIB, logSize: Number(log ?? 1) * MIB });
      image.expectSound(new Uint8Array(Math.ceil(size / 512) * 512));
      await takeTurns(random, image, Math.ceil(size / 512) * 512, STEPS);
    });
  });

  test.each<[string, string]>([["64T", ""], ...(process.env["LONG"] ? [["40T", "block_size=256M"] as [string, string]] : [])])("far apart in a disk of %s %s, with a cache of a few slices", async (size, options) => {
    const image = new QemuImage(folder, undefined, "vhdx");
    image.create(size, options);
    await expectFarApart(image, [0, 700, 4096, 8191, 20_000, 39_000, 1, 700.5]);
    image.expectSound();
  });

  test.each([1, MIB, GIB, GIB + 1, 100 * GIB + 512, 33 * 1024 * GIB])("new images of %i bytes have QEMU's size, blocks and file size", async (size) => {
    const image = await made({ size }), theirs = new QemuImage(folder, undefined, "vhdx");
    theirs.create(size, "");
    const [a, b] = [image, theirs].map(({ path }) => {
      const info = JSON.parse(runTool("qemu-img", ["info", "--output=json", path])) as Record<string, unknown>, bytes = readFileSync(path);
      // From the log on; but for the disk's GUID.
      const metadata = bytes.readUInt32LE(192 * KIB + 16 + 32 + 16);
      bytes.fill(0, metadata + 64 * KIB + 16, metadata + 64 * KIB + 32);
      return { ...info, filename: "", "actual-size": 0, bytes: createHash("sha256").update(bytes.subarray(MIB)).digest("hex") };
    });
    expect(a).toEqual(b);
  });
});

/** Where the BAT is, by the region table. */
function batOf(path: string): number {
  const fd = openSync(path, "r"), table = Buffer.alloc(80);
  readSync(fd, table, 0, 80, 192 * KIB);
  closeSync(fd);
  return table.readUInt32LE(32);
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("a log that has to be replayed", () => {
  seeded("of ours, by QEMU", async (random) => {
    const image = await made({ size: 20 * MIB, blockSize: MIB }), disk = await image.open(), bytes = random.bytes(300 * KIB), contents = new Uint8Array(20 * MIB);
    for (const at of [0, 3 * MIB - 1000, 11 * MIB, 17 * MIB + 5000]) {
      await disk.write(at, bytes);
      contents.set(bytes, at);
    }
    await disk.flush();
    const crashed = new QemuImage(folder, undefined, "vhdx");
    copyFileSync(image.path, crashed.path);
    await disk.close();
    // As if the power had gone before the BAT was written.
    const fd = openSync(crashed.path, "r+"), bat = batOf(crashed.path);
    writeSync(fd, Buffer.alloc(4096), 0, 4096, bat);
    closeSync(fd);
    expect(tryTool("qemu-img", ["info", crashed.path]).stderr).toMatch(/log that needs to be replayed/);
    expectBytes(await crashed.bytes(), contents, "what we read without a change");
    const { status, stdout } = tryTool("qemu-img", ["check", "-r", "all", crashed.path]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/1 corruptions/);
    expectBytes(crashed.contents(), contents, "what QEMU reads after its replay");
    expectBytes(await crashed.bytes(), contents, "what we read");
  });

  /** QEMU fails to write the BAT, after it has written its log. */
  function crashedQemu(): QemuImage {
    const image = new QemuImage(folder, undefined, "vhdx");
    image.create(20 * MIB, "block_size=1M");
    image.io("write -q -P 9 5M 100k");
    const file = `driver=vhdx,file.driver=blkdebug,file.image.driver=file,file.image.filename=${image.path},file.inject-error.0.event=none,file.inject-error.0.iotype=write,file.inject-error.0.sector=${batOf(image.path) / 512}`;
    tryTool("qemu-io", ["--image-opts", file, "-c", "write -P 7 0 2M", "-c", "write -P 8 11M 64k"]);
    return image;
  }

  test("of QEMU's, by us: read-only in memory, and into the file", async () => {
    const image = crashedQemu(), wanted = new Uint8Array(20 * MIB);
    expect(tryTool("qemu-img", ["info", image.path]).stderr).toMatch(/log that needs to be replayed/);
    const copy = new QemuImage(folder, undefined, "vhdx");
    copyFileSync(image.path, copy.path);
    runTool("qemu-img", ["check", "-r", "all", copy.path]);
    wanted.set(copy.contents());
    expect(wanted[0]).toBe(7);
    const before = readFileSync(image.path);
    expectBytes(await image.bytes(), wanted, "what we read without a change");
    expect(readFileSync(image.path).equals(before)).toBe(true);
    const file = FileStorage.open(image.path, { mode: "write" });
    expect(() => run(checkVhdx(file))).toThrow(/log that needs to be replayed/);
    expect(await run(checkVhdx(file, { repair: "all" }))).toMatchObject({ corruptions: 0, corruptionsFixed: 1 });
    expect(await run(checkVhdx(file))).toMatchObject({ corruptions: 0, findingCount: 0 });
    file.close();
    image.expectSound(wanted);
  });

  test("opening for writing replays it", async () => {
    const image = crashedQemu(), disk = await image.open(), some = new Uint8Array(1000);
    await disk.read(1000, some);
    expect(new Set(some)).toEqual(new Set([7]));
    await disk.write(19 * MIB, some);
    await disk.close();
    image.io("read -q -P 7 0 1M", "read -q -P 9 5M 100k", "read -q -P 7 19M 1000");
    image.expectSound();
  });
});

test("a file cut off is refused for writing, and its missing part for reading", async () => {
  const image = await made({ size: 5 * MIB, blockSize: MIB }), disk = await image.open();
  await disk.write(0, new Uint8Array(5 * MIB).fill(1));
  await disk.close();
  truncateSync(image.path, 6 * MIB);
  await expect(image.open()).rejects.toThrow(/truncated/);
  await expect(image.bytes()).rejects.toThrow(/truncated/);
});
