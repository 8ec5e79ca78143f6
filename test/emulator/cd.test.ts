import { describe, expect, test } from "vitest";
import type { Machine } from "../../emulator/index.ts";
import { GuestDisk } from "../support/guest-disk.ts";
import { requireGuests } from "../support/guests.ts";
import { destroyMachinesAfterEach, makeMachine } from "../support/machine.ts";
import { echoDisk } from "../support/sectors.ts";

const SECTOR = 2048;
const BOOT_RECORD = 17, CATALOG = 20, CODE = 21, SECTORS = 30;

/** A CD that boots the serial echo: El Torito without emulation, and no file system. */
function bootableCd(): GuestDisk {
  const bytes = new Uint8Array(SECTORS * SECTOR);
  const view = new DataView(bytes.buffer);
  const text = (at: number, words: string): void => void new TextEncoder().encodeInto(words, bytes.subarray(at));
  text(16 * SECTOR, "\x01CD001\x01");
  text(BOOT_RECORD * SECTOR, "\0CD001\x01EL TORITO SPECIFICATION");
  view.setUint32(BOOT_RECORD * SECTOR + 0x47, CATALOG, true);
  // Validation entry: its words add up to zero.
  const catalog = CATALOG * SECTOR;
  bytes[catalog] = 1;
  bytes.set([0xaa, 0x55, 0x55, 0xaa], catalog + 28);
  // Initial entry: bootable, no emulation, four sectors of 512 bytes.
  bytes[catalog + 32] = 0x88;
  view.setUint16(catalog + 38, 4, true);
  view.setUint32(catalog + 40, CODE, true);
  bytes.set(echoDisk().subarray(0, 512), CODE * SECTOR);
  return new GuestDisk(bytes);
}

describe.skipIf(!requireGuests())("the CD drive", () => {
  destroyMachinesAfterEach();

  async function boot(cdrom: GuestDisk): Promise<Machine> {
    const machine = await makeMachine({ memory: 16, cdrom });
    machine.start();
    return machine;
  }
  const onScreen = (machine: Machine) => expect.poll(() => machine.screenText().join("\n"), { timeout: 20_000 });

  test.each(["sync", "mixed", "async"] as const)("a machine boots from it, storage %s", async (answers) => {
    const cd = bootableCd();
    cd.answers = answers;
    const machine = await boot(cd);
    machine.serial.send("hello");
    expect(await machine.waitForSerial("hello")).toBe("Rhello");
    expect(machine.statistics["cdrom"]?.read).toBeGreaterThan(2);
  });

  test.each(["sync", "async"] as const)("a failed read is an error to the BIOS at once, not silence (%s)", async (answers) => {
    const cd = bootableCd();
    cd.answers = answers;
    cd.fails = ({ offset }) => offset >= CODE * SECTOR;
    const machine = await boot(cd);
    const failures: string[] = [];
    machine.on("disk-error", ({ drive, offset }) => failures.push(`${drive} ${offset}`));
    await onScreen(machine).toContain("Could not read from CDROM");
    expect(failures).toContain(`cdrom ${CODE * SECTOR}`);
  });

  test("one that was put in later boots after a reset; one that was taken out does not", async () => {
    const machine = await makeMachine({ memory: 16 });
    machine.start();
    await onScreen(machine).toContain("No bootable device");
    machine.insertCd(bootableCd());
    machine.reset();
    expect(await machine.waitForSerial("R")).toBe("R");
    machine.ejectCd();
    machine.reset();
    await onScreen(machine).toContain("No bootable device");
  });
});
