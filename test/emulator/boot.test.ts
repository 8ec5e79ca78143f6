import { readFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { Machine, type MachineConfig } from "../../emulator/index.ts";
import { nodeWasm } from "../../emulator/node.ts";
import { bootsector } from "../../guests/catalog.ts";
import { GuestDisk } from "../support/guest-disk.ts";
import { biosImages, guestFile, requireGuests } from "../support/guests.ts";

const SUM = bootsector.says.at(-1) ?? "";
const SIZE = 8 << 20;

describe.skipIf(!requireGuests(bootsector))("the boot sector guest", () => {
  const machines: Machine[] = [];
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.destroy().catch(() => {});
  });

  async function boot(config: Partial<MachineConfig>): Promise<Machine> {
    const machine = await Machine.create({ ...biosImages(), wasm: await nodeWasm(), memory: 16, ...config });
    machines.push(machine);
    machine.start();
    return machine;
  }

  function disk(): GuestDisk {
    const bytes = new Uint8Array(SIZE);
    bytes.set(readFileSync(guestFile("bootsector.bin")));
    return new GuestDisk(bytes);
  }

  for (const bus of ["ide", "virtio"] as const) {
    for (const answers of ["sync", "mixed", "async"] as const) {
      test(`boots, writes and reads over ${bus}, storage ${answers}`, async () => {
        const storage = disk();
        storage.answers = answers;
        const machine = await boot({ drives: [{ storage, bus }] });
        const output = await machine.waitForSerial(/DONE|ERR/, 30_000);
        expect(output).toContain(SUM);
        const { asynchronous } = machine.statistics[`${bus}0`] ?? { asynchronous: -1 };
        if (answers === "sync") expect(asynchronous).toBe(0);
        else expect(asynchronous).toBeGreaterThan(0);
      });
    }
  }
});
