import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import type { Machine } from "../../emulator/index.ts";
import { bootsector } from "../../guests/catalog.ts";
import { GuestDisk } from "../support/guest-disk.ts";
import { guestFile, requireGuests } from "../support/guests.ts";
import { destroyMachinesAfterEach, makeMachine } from "../support/machine.ts";

const SUM = bootsector.says.at(-1) ?? "";
const SIZE = 8 << 20;
const BUSES = ["ide", "virtio"] as const;

function bootDisk(size = SIZE): GuestDisk {
  const bytes = new Uint8Array(size);
  bytes.set(readFileSync(guestFile("bootsector.bin")));
  return new GuestDisk(bytes);
}

describe.skipIf(!requireGuests(bootsector))("the boot sector guest", () => {
  destroyMachinesAfterEach();

  async function boot(storage: GuestDisk, bus: "ide" | "virtio", readOnly = false): Promise<Machine> {
    const machine = await makeMachine({ memory: 16, drives: [{ storage, bus, readOnly }] });
    machine.start();
    return machine;
  }

  for (const bus of BUSES) {
    for (const answers of ["sync", "mixed", "async"] as const) {
      test(`writes and reads over ${bus}, storage ${answers}`, async () => {
        const storage = bootDisk();
        storage.answers = answers;
        const machine = await boot(storage, bus);
        expect(await machine.waitForSerial(/DONE|ERR/)).toContain(SUM);
        const { asynchronous } = machine.statistics[`${bus}0`] ?? { asynchronous: -1 };
        expect(answers === "sync" ? asynchronous === 0 : asynchronous > 0).toBe(true);
      });
    }

    for (const operation of ["read", "write"] as const) {
      test(`a failed ${operation} over ${bus} is an error to the BIOS, and an event`, async () => {
        const storage = bootDisk();
        storage.fails = (call) => call.operation === operation && call.offset >= 1 << 20;
        const machine = await boot(storage, bus);
        const failures: string[] = [];
        machine.on("disk-error", (failure) => failures.push(`${failure.drive} ${failure.operation} ${failure.error.kind}`));
        expect(await machine.waitForSerial(/DONE|ERR/)).toContain("ERR");
        expect(failures[0]).toBe(`${bus}0 ${operation} io`);
      });
    }

    test(`a read-only drive on ${bus} refuses writes without asking the storage`, async () => {
      const storage = bootDisk();
      const machine = await boot(storage, bus, true);
      expect(await machine.waitForSerial(/DONE|ERR/)).toContain("ERR");
      expect(storage.count("write")).toBe(0);
    });

    test(`a disk whose last sector is cut short boots over ${bus}`, async () => {
      const machine = await boot(bootDisk(SIZE - 100), bus);
      expect(await machine.waitForSerial(/DONE|ERR/)).toContain(SUM);
    });

    test(`a failure that the policy retries is no failure to the guest (${bus})`, async () => {
      const storage = bootDisk();
      let left = 5;
      storage.fails = (call) => call.operation === "write" && left-- > 0;
      const drives = [{ storage, bus }];
      const machine = await makeMachine({ memory: 16, drives, onDiskError: () => (left % 2 ? "retry" : Promise.resolve("retry")) });
      machine.start();
      expect(await machine.waitForSerial(/DONE|ERR/)).toContain(SUM);
    });

    test(`a reset in the middle of a request drops it (${bus})`, async () => {
      const storage = bootDisk();
      storage.holds = ({ operation, offset }) => operation === "read" && offset >= 1 << 20;
      const machine = await boot(storage, bus);
      await expect.poll(() => storage.held, { timeout: 10_000 }).toBe(1);
      machine.reset();
      storage.holds = () => false;
      await machine.waitForSerial("BOOT");
      const again = machine.waitForSerial(/DONE|ERR/);
      storage.release();
      expect(await again).toContain(SUM);
    });

    test(`a state saved in the middle goes on in another machine (${bus})`, async () => {
      const storage = bootDisk();
      storage.answers = "async";
      const machine = await boot(storage, bus);
      await expect.poll(() => storage.count("write"), { timeout: 10_000, interval: 1 }).toBeGreaterThan(5);
      const state = await machine.save();
      expect(machine.running).toBe(true);
      await machine.stop();
      const other = await makeMachine({ memory: 16, drives: [{ storage, bus }] });
      await other.restore(state);
      other.start();
      expect(await other.waitForSerial(/DONE|ERR/)).toContain(SUM);
    });
  }

  test("more than one disk: the first boots, whatever its bus", async () => {
    const drives = [
      { storage: bootDisk(), bus: "ide" as const }, { storage: new GuestDisk(SIZE), bus: "ide" as const },
      { storage: new GuestDisk(SIZE), bus: "ide" as const }, { storage: new GuestDisk(SIZE), bus: "virtio" as const },
    ];
    const machine = await makeMachine({ memory: 16, drives });
    machine.start();
    expect(await machine.waitForSerial(/DONE|ERR/)).toContain(SUM);
    expect(machine.statistics["ide0"]?.write).toBeGreaterThan(60);
  });

  test("a guest that halts for good is an event", async () => {
    const machine = await makeMachine({ memory: 16, drives: [{ storage: bootDisk(), bus: "ide" }] });
    const halted = new Promise<void>((resolve) => machine.on("halted", resolve));
    machine.start();
    await expect(halted).resolves.toBeUndefined();
  });
});
