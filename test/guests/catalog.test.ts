import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { bios, bootsector, debian, findGuest, guests, tiny, variantImage } from "../../guests/catalog.ts";
import { runTool } from "../support/tools.ts";

const GUESTS = join(import.meta.dirname, "../../guests");

/** What build.sh would leave for these arguments, relative to its output folder. */
function planned(...args: string[]): string[] {
  const out = runTool("bash", [join(GUESTS, "build.sh"), "--dry-run", "--out", "/nowhere", ...args]);
  return [...out.matchAll(/^\/nowhere\/(\S+): /gm)].map(([, file = ""]) => file);
}

test("each guest is a folder with a build script, an entry and a page", () => {
  for (const { name } of guests) {
    const missing = ["build.sh", "guest.ts", "README.md"].filter((file) => !existsSync(join(GUESTS, name, file)));
    expect({ name, missing }).toEqual({ name, missing: [] });
    expect(findGuest(name)?.name).toBe(name);
  }
  expect(findGuest("plan9")).toBeUndefined();
});

test("build.sh builds what the catalogue lists", () => {
  const files = [...Object.values(bios), ...guests.flatMap((guest) => guest.files)];
  expect(planned().sort()).toEqual(files.sort());
  for (const guest of guests) expect(guest.files).toContain(guest.image);
});

test("variants are called the same on both sides", () => {
  expect(planned("tiny", "--kernel", "own")).toContain(variantImage(tiny, { kernel: "own" }));
  expect(planned("debian", "--with", "sqlite3,fio")).toContain(variantImage(debian, { with: ["fio", "sqlite3"] }));
  const both = variantImage(debian, { kernel: "own", with: ["fio", "fio"] });
  expect(both).toBe("debian-with-fio-own.qcow2");
  expect(planned("debian", "--with", "fio,", "--kernel", "own")).toContain(both);
  expect(variantImage(tiny, {})).toBe(tiny.image);
});

test("memory and times make sense", () => {
  for (const { memoryMiB, buildSeconds, bootSeconds, prompt } of guests) {
    expect(memoryMiB.minimum).toBeLessThanOrEqual(memoryMiB.default);
    expect(memoryMiB.default).toBeLessThanOrEqual(128);
    expect(Math.min(buildSeconds, bootSeconds.ide, bootSeconds.virtio)).toBeGreaterThan(0);
    expect(prompt).not.toBe("");
  }
});

/** What bootsector.asm does, once more: 64 blocks written and read, then the first with other contents. */
function bootSectorSum(): number {
  let sum = 0;
  const readBlock = (seed: number) => {
    for (let i = 0, value = seed; i < 1024; i++) {
      sum = (((sum << 1) | (sum >>> 31)) ^ value) >>> 0;
      value = (Math.imul(value, 1664525) + 1013904223) >>> 0;
    }
  };
  for (let block = 0; block < 64; block++) readBlock(2048 + block * 128);
  readBlock(2048 + 1);
  return sum;
}

test("the boot sector's sum is the one in the catalogue", () => {
  expect(bootsector.says).toContain(`SUM ${bootSectorSum().toString(16).padStart(8, "0")}`);
});

test.skipIf(!existsSync(join(GUESTS, "out/bootsector.bin")))("the boot sector is one sector that boots", () => {
  const bytes = readFileSync(join(GUESTS, "out/bootsector.bin"));
  expect([bytes.length, bytes.readUInt16LE(510)]).toEqual([512, 0xaa55]);
});
