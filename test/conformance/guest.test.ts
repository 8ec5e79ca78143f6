import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect } from "vitest";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { bootsector } from "../../guests/catalog.ts";
import { guestFile, requireGuests } from "../support/guests.ts";
import { MemoryFiles } from "../support/memory-files.ts";
import { destroyMachinesAfterEach, makeMachine } from "../support/machine.ts";
import { inMode, MODES } from "../support/modes.ts";
import { expectSoundImage } from "../support/qemu-image.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";
import { openRow, ROWS } from "./rows.ts";

const SIZE = 8 << 20, SUM = bootsector.says.at(-1) ?? "";

const BUSES = ["ide", "virtio"] as const;

/** Both with a storage that answers at once; with the others one each, from row to row in turns. */
function busesFor(mode: string, row: number): readonly (typeof BUSES)[number][] {
  return mode === "sync" || process.env["LONG"] ? BUSES : BUSES.filter((_, bus) => (bus + row + (mode === "mixed" ? 1 : 0)) % 2 === 0);
}

/** From the guest's INT 13h through controller, disk and format to the storage, and back. */
describe.skipIf(!requireGuests(bootsector) || !requireTool("qemu-img"))("a guest that writes and reads its disk", () => {
  destroyMachinesAfterEach();
  const folder = tempFolder();

  describe.each(ROWS.map((row, at) => ({ name: row.name, row, at })))("$name", ({ row, at }) => {
    describe.each(MODES)("%s storage", (mode) => {
      for (const bus of busesFor(mode, at)) {
        seeded(`over ${bus}`, async (random) => {
          const boot = new Uint8Array(SIZE), file = new MemoryStorage(undefined, join(folder, "guest")), files = new MemoryFiles(file.name, (one) => inMode(mode, one, random));
          boot.set(readFileSync(guestFile("bootsector.bin")));
          files.add(new MemoryStorage(row.asBase?.(boot) ?? boot, join(folder, "base")));
          await row.create(file, SIZE, row.backs ? { file: "base", format: "raw" } : undefined, files);
          const disk = await openRow(row, inMode(mode, file, random), files);
          if (!row.backs) await disk.write(0, boot.subarray(0, 512));
          const machine = await makeMachine({ memory: 16, drives: [{ storage: disk, bus }] });
          machine.start();
          expect(await machine.waitForSerial(/DONE|ERR/, 120_000)).toContain(SUM);
          const { asynchronous = -1, write = 0 } = machine.statistics[`${bus}0`] ?? {};
          expect(write).toBeGreaterThanOrEqual(64);
          // A storage that answers at once lets every layer answer at once: not one promise on the way.
          expect(asynchronous === 0).toBe(mode === "sync");
          await machine.destroy();
          await disk.close();
          writeFileSync(file.name, file.bytes);
          for (const { name, bytes } of files.all.values()) writeFileSync(name, bytes);
          if (row.judged) expectSoundImage(file.name, row.format);
        });
      }
    });
  });
});
