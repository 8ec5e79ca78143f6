import { copyFileSync, readFileSync, writeFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { run } from "../../disk/task.ts";
import { ourCheck } from "../support/qcow2.ts";
import { readBitmaps } from "../support/qcow2-bitmaps.ts";
import { QemuImage } from "../support/qemu-image.ts";
import type { Random } from "../support/random.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const KIB = 1024, MIB = 1024 * KIB;
const folder = tempFolder();
const bitmap = (image: QemuImage, ...args: string[]): string => runTool("qemu-img", ["bitmap", ...args.slice(0, -1), image.path, args.at(-1) ?? ""]);
/** What each bitmap says, its dirty granules as `3-17 20-20`. */
const told = (image: QemuImage) =>
  readBitmaps(new Uint8Array(readFileSync(image.path))).bitmaps.map(({ name, inUse, auto, granularity, dirty }) => ({ name, inUse, auto, granularity, dirty: ranges(dirty) }));

function ranges(numbers: readonly number[]): string {
  const ends = numbers.filter((n, i) => numbers[i + 1] !== n + 1), starts = numbers.filter((n, i) => numbers[i - 1] !== n - 1);
  return starts.map((start, i) => `${start}-${ends[i]}`).join(" ");
}

async function sound(image: QemuImage): Promise<void> {
  image.expectSound();
  expect(await ourCheck(image.path)).toMatchObject({ leaks: 0, corruptions: 0, checkErrors: 0 });
}

/** One of QEMU's, one to be ours, with the same bitmaps. */
function pair(options: string, size = "4M"): { qemu: QemuImage; ours: QemuImage } {
  const qemu = new QemuImage(folder), ours = new QemuImage(folder);
  qemu.create(size, options);
  bitmap(qemu, "--add", "-g", "512", "fine");
  bitmap(qemu, "--add", "-g", "64k", "coarse");
  qemu.io("write -q -P 1 100k 300k");
  bitmap(qemu, "--add", "--disable", "-g", "4k", "frozen");
  bitmap(qemu, "--merge", "fine", "frozen");
  bitmap(qemu, "--add", "-g", "2G", "whole");
  copyFileSync(qemu.path, ours.path);
  return { qemu, ours };
}

type Change = { readonly kind: "write" | "zero" | "discard"; readonly offset: number; readonly length: number };

function changes(random: Random, count: number, size: number): Change[] {
  return Array.from({ length: count }, () => {
    const kind = random.pick(["write", "write", "zero", "discard"] as const), unit = kind === "discard" ? 2 * MIB : 512;
    const offset = random.int(Math.ceil(size / unit)) * unit, length = Math.min(size - offset, (1 + random.int(Math.ceil(300_000 / unit))) * unit);
    return { kind, offset, length };
  });
}

async function apply(disk: Disk, { kind, offset, length }: Change): Promise<void> {
  if (kind === "write") await disk.write(offset, new Uint8Array(length).fill(7));
  else if (kind === "zero") await disk.zero(offset, length);
  else await disk.discard(offset, length);
}

const command = ({ kind, offset, length }: Change): string => (kind === "write" ? `write -q -P 7 ${offset} ${length}` : kind === "zero" ? `write -q -z -u ${offset} ${length}` : `discard -q ${offset} ${length}`);

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("persistent bitmaps", () => {
  for (const options of ["", "cluster_size=512", "cluster_size=4k,refcount_bits=1", "cluster_size=2M", "extended_l2=on"]) {
    seeded(`follow the guest as QEMU's do${options === "" ? "" : `, ${options}`}`, async (random) => {
      const { qemu, ours } = pair(options);
      for (let session = 0; session < 2; session++) {
        const all = changes(random, 5, 4 * MIB);
        qemu.io(...all.map(command));
        const disk = await ours.open();
        for (const change of all) await apply(disk, change);
        await disk.close();
        expect(told(ours)).toEqual(told(qemu));
        await sound(ours);
      }
      // QEMU goes on with what we wrote.
      const more = changes(random, 3, 4 * MIB);
      for (const image of [qemu, ours]) image.io(...more.map(command));
      expect(told(ours)).toEqual(told(qemu));
      await sound(ours);
    });
  }

  seeded("follow a disk that shrinks and grows as QEMU's do", async (random) => {
    const { qemu, ours } = pair("cluster_size=512");
    for (const size of [3 * MIB, 3 * MIB + 512, 200 * KIB, 9 * MIB, 20 * MIB, MIB]) {
      const some = changes(random, 3, size).filter(({ kind }) => kind !== "discard");
      runTool("qemu-img", ["resize", "-q", "--shrink", qemu.path, String(size)]);
      qemu.io(...some.map(command));
      const disk = await ours.open();
      await disk.truncate(size);
      for (const change of some) await apply(disk, change);
      await disk.close();
      expect(told(ours)).toEqual(told(qemu));
      await sound(ours);
    }
  }, 60_000);

  test("are marked in use before the first change, and not by opening", async () => {
    const { ours } = pair("");
    const before = readFileSync(ours.path), disk = await ours.open(), bytes = new Uint8Array(512);
    await disk.read(0, bytes);
    await disk.flush();
    expect(readFileSync(ours.path).subarray(0, before.length).equals(before)).toBe(true);
    await disk.write(512, bytes);
    expect(told(ours).map(({ name, inUse }) => [name, inUse])).toEqual([["fine", true], ["coarse", true], ["frozen", false], ["whole", true]]);
    await disk.close();
    expect(told(ours).map(({ inUse }) => inUse)).toEqual([false, false, false, false]);
    await (await ours.open()).close();
    await (await ours.open({ readOnly: true })).close();
    expect(told(ours)[0]?.dirty).toMatch(/^1-1 /);
  });

  test("those that a writer left in use are kept as they are, and nothing is resized with them", async () => {
    const { ours } = pair("");
    const bytes = readFileSync(ours.path), [fine] = readBitmaps(new Uint8Array(bytes)).bitmaps;
    bytes.writeUInt32BE(3, fine?.flagsAt ?? 0);
    writeFileSync(ours.path, bytes);
    const before = told(ours), disk = await ours.open();
    await disk.write(MIB, new Uint8Array(512).fill(1));
    expect(() => disk.truncate(8 * MIB)).toThrow(/Bitmap 'fine' is inconsistent and cannot be used/);
    await disk.close();
    const after = told(ours);
    expect(after[0]).toEqual(before[0]);
    expect(after[1]?.dirty).toMatch(/ 16-16$/);
    await sound(ours);
    expect(tryTool("qemu-img", ["bitmap", "--remove", ours.path, "fine"]).status).toBe(0);
  });

  test("a resize that fails, or changes nothing, leaves no marks", async () => {
    const { ours } = pair(""), before = told(ours), disk = await ours.open();
    await disk.truncate(disk.size);
    expect(() => disk.truncate(2 ** 52)).toThrow(DiskError);
    await disk.close();
    expect(told(ours)).toEqual(before);
    await sound(ours);
  });

  test("a whole page of dirty bits, and pages that are all dirty already", async () => {
    const { qemu, ours } = pair("cluster_size=512");
    for (const image of [qemu, ours]) image.io("write -q -P 1 0 4M");
    const disk = await ours.open();
    await disk.write(0, new Uint8Array(4 * MIB).fill(2));
    await disk.close();
    expect(told(ours)).toEqual(told(qemu));
    await (async () => { const again = await ours.open(); await again.write(MIB, new Uint8Array(512)); await again.close(); })();
    expect(told(ours)).toEqual(told(qemu));
    await sound(ours);
  });

  test("are not those of a writer that did not know them", async () => {
    const { ours } = pair("");
    const bytes = readFileSync(ours.path);
    bytes[95] = 0;
    writeFileSync(ours.path, bytes);
    const disk = await ours.open();
    await disk.write(0, new Uint8Array(512).fill(9));
    await disk.close();
    expect(told(ours)).toEqual([]);
    // They are leaks now, which a repair gives back.
    expect((await ourCheck(ours.path, "all")).leaksFixed).toBeGreaterThan(0);
    await sound(ours);
  });

  test("one with a broken table is left alone, and can be removed", async () => {
    const { ours } = pair("");
    const bytes = readFileSync(ours.path), [fine] = readBitmaps(new Uint8Array(bytes)).bitmaps;
    bytes.writeBigUInt64BE(0xff00_0000_0000_0000n, fine?.tableOffset ?? 0);
    writeFileSync(ours.path, bytes);
    const disk = await ours.open();
    await disk.write(MIB, new Uint8Array(512).fill(1));
    await disk.close();
    const again = await ours.open(), image = again.chain[0], bitmaps = image.bitmaps === undefined ? undefined : await run(image.bitmaps());
    expect(bitmaps?.list().map(({ inconsistent }) => inconsistent)).toEqual([true, false, false, false]);
    bitmaps?.remove("fine");
    await again.close();
    expect(told(ours).map(({ name }) => name)).toEqual(["coarse", "frozen", "whole"]);
    await ourCheck(ours.path, "leaks");
    await sound(ours);
  });

  seeded("a damaged directory or table ends in a DiskError, or the bitmap counts as inconsistent", async (random) => {
    const { ours } = pair("cluster_size=512");
    const whole = new Uint8Array(readFileSync(ours.path)), { uses } = readBitmaps(whole);
    const places = [...uses.filter(([, , what]) => !what.startsWith("data")), [100, 500, "header"] as const];
    for (let i = 0; i < 150; i++) {
      const bytes = whole.slice(), [at, length] = random.pick(places);
      for (let n = 0; n <= random.int(3); n++) bytes[at + random.int(length)] = random.pick([0, 1, 0xff, random.int(256)]);
      writeFileSync(ours.path, random.chance(0.1) ? bytes.subarray(0, random.int(bytes.length)) : bytes);
      try {
        const disk = await ours.open();
        try {
          await disk.write(random.int(4000) * 512, new Uint8Array(3000).fill(1));
        } finally {
          await disk.close();
        }
      } catch (error) {
        expect(error).toBeInstanceOf(DiskError);
      }
    }
  }, 60_000);
});
