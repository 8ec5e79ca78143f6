import { describe, expect, test } from "vitest";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Machine, Pixels } from "../../emulator/index.ts";
import { requireGuests } from "../support/guests.ts";
import { destroyMachinesAfterEach, makeMachine } from "../support/machine.ts";
import { echoDisk, keyboardDisk, mode13Disk, VGA_COLOURS, vesaDisk } from "../support/sectors.ts";

describe.skipIf(!requireGuests())("screen, keyboard and serial port in Node", () => {
  destroyMachinesAfterEach();

  async function boot(disk: Uint8Array<ArrayBuffer>, graphics = false): Promise<Machine> {
    const machine = await makeMachine({ memory: 16, drives: [{ storage: new MemoryStorage(disk), bus: "ide" }], screen: { graphics } });
    machine.start();
    await machine.waitForSerial("R");
    return machine;
  }

  const dot = ({ data, width }: Pixels, x: number, y: number): number[] => [...data.subarray((y * width + x) * 4, (y * width + x) * 4 + 4)];

  test("text mode: rows, and a picture without any canvas", async () => {
    const machine = await boot(echoDisk());
    expect(machine.screenText().join("\n")).toContain("Booting from Hard Disk");
    expect(machine.screen.mode).toEqual({ graphical: false, columns: 80, rows: 25, width: 720, height: 400 });
    const picture = machine.screenshot();
    expect([picture.width, picture.height, picture.data.length]).toEqual([720, 400, 720 * 400 * 4]);
    const colours = new Set(new Uint32Array(picture.data.buffer));
    expect([...colours].map((colour) => colour.toString(16)).sort()).toEqual(["ff000000", "ffa8a8a8"]);
  });

  test.each([["mode 13h", mode13Disk, 320, 200, 200], ["VESA 101h", vesaDisk, 640, 480, 100]] as const)("%s", async (_name, disk, width, height, filled) => {
    const machine = await boot(disk(), true);
    expect(machine.screen.mode).toMatchObject({ graphical: true, width, height });
    const picture = machine.screenshot();
    const wrong: string[] = [];
    for (const y of [0, 1, filled - 1]) {
      for (let x = 0; x < width; x++) {
        const colour = VGA_COLOURS[(y * width + x) & 255];
        if (colour && dot(picture, x, y).join() !== [...colour, 255].join()) wrong.push(`${x},${y}: ${dot(picture, x, y).join()}`);
      }
    }
    expect(wrong).toEqual([]);
    expect(dot(picture, 0, height - 1)[3]).toBe(255);
  });

  test("the keyboard: text, and keys by scan code", async () => {
    const machine = await boot(keyboardDisk());
    await machine.type("Echo $((6 * 7)) > \"x\"~`|\\\n", 20);
    expect(await machine.waitForSerial("\r")).toBe("Echo $((6 * 7)) > \"x\"~`|\\\r");
    const [a, release] = [0x1e, 0x80];
    machine.sendScancodes([a, a | release]);
    expect(await machine.waitForSerial("a")).toBe("a");
  });

  test("serial echo of more than the port can hold, in order", async () => {
    const machine = await boot(echoDisk());
    const text = Array.from({ length: 3000 }, (_, i) => `<${i}>`).join("");
    machine.serial.send(text);
    expect((await machine.waitForSerial("<2999>")).endsWith(text)).toBe(true);
  });
});
