import { createHook } from "node:async_hooks";
import { describe, expect, test } from "vitest";
import { ATA, trimRanges } from "../../emulator/ata.ts";
import { GuestDisk } from "../support/guest-disk.ts";
import { Random, seeded } from "../support/random.ts";
import { FakeIde } from "./fake-ata.ts";
import { RAM } from "./fake-driver.ts";

const SIZE = 1 << 20;
const SECTORS = SIZE / 512;
const BUSY = 0xd0, IDLE = 0x50, FAILED = 0x51, DATA = 0x58;
const ABORTED = 4, NOT_FOUND = 0x10, UNCORRECTABLE = 0x40;

const filled = (): GuestDisk => new GuestDisk(new Random(3).bytes(SIZE));
const settle = (): Promise<void> => new Promise((resolve) => { setTimeout(resolve, 5); });

function content(storage: GuestDisk, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  void storage.read(offset, bytes);
  return bytes;
}

function trim(...ranges: readonly [sector: number, count: number][]): Uint8Array {
  const payload = new Uint8Array(512);
  const view = new DataView(payload.buffer);
  for (const [index, [sector, count]] of ranges.entries()) {
    view.setUint32(8 * index, sector, true);
    view.setUint16(8 * index + 6, count, true);
  }
  return payload;
}

describe("transfers", () => {
  test("DMA reads and writes, scattered", () => {
    const storage = filled();
    const ide = new FakeIde(storage);
    ide.command(ATA.READ_DMA, { lba: 5, count: 2 });
    ide.table([0x20000, 300], [0x30000, 724, true]);
    ide.ata.do_ata_read_sectors_dma();
    const { ram } = ide.memory;
    expect(Buffer.concat([ram.subarray(0x20000, 0x20000 + 300), ram.subarray(0x30000, 0x30000 + 724)]).compare(content(storage, 2560, 1024))).toBe(0);
    expect(ide.outcome).toEqual({ status: IDLE, error: 0, interrupts: 1 });
    ide.command(ATA.WRITE_DMA_EXT, { lba: 9 });
    ide.region(512).fill(7);
    ide.ata.do_ata_write_sectors_dma();
    expect(content(storage, 9 * 512, 512).every((byte) => byte === 7)).toBe(true);
    expect(ide.ata.lba).toBe(10);
  });

  test("PIO: the interrupt comes after the write, and the bytes are those of the command", async () => {
    const storage = filled();
    storage.holds = ({ operation }) => operation === "write";
    const ide = new FakeIde(storage);
    ide.command(ATA.WRITE_SECTORS);
    Object.assign(ide.ata, { write_dest: 1024, data_length: 512 });
    ide.ata.data.fill(1, 0, 512);
    ide.ata.do_write();
    ide.ata.data.fill(2, 0, 512);
    expect(ide.outcome).toMatchObject({ status: BUSY, interrupts: 0 });
    storage.release();
    await settle();
    expect(ide.outcome).toMatchObject({ status: IDLE, interrupts: 1 });
    expect(content(storage, 1024, 512).every((byte) => byte === 1)).toBe(true);
    ide.command(ATA.READ_SECTORS, { lba: 2 });
    expect([ide.ata.status_reg, ide.ata.data_end, ide.ata.data[0]]).toEqual([DATA, 512, 1]);
  });

  test("with a synchronous storage no promise is made", () => {
    const ide = new FakeIde(filled());
    ide.region(512);
    let promises = 0;
    const hook = createHook({ init: (_id, type) => { if (type === "PROMISE") promises++; } });
    hook.enable();
    ide.command(ATA.READ_DMA);
    ide.ata.do_ata_read_sectors_dma();
    ide.command(ATA.WRITE_DMA);
    ide.ata.do_ata_write_sectors_dma();
    ide.command(ATA.READ_SECTORS);
    ide.command(ATA.FLUSH_CACHE);
    hook.disable();
    expect([promises, ide.ata.interrupts]).toEqual([0, 4]);
  });
});

describe("errors", () => {
  test.each([["read", ATA.READ_SECTORS, UNCORRECTABLE], ["flush", ATA.FLUSH_CACHE_EXT, ABORTED], ["standby", ATA.STANDBY_IMMEDIATE, ABORTED]])("a failed %s", async (_name, code, error) => {
    for (const answers of ["sync", "async"] as const) {
      const storage = filled();
      storage.answers = answers;
      storage.fails = () => true;
      const ide = new FakeIde(storage);
      ide.command(code);
      await settle();
      expect(ide.outcome).toEqual({ status: FAILED, error, interrupts: 1 });
    }
  });

  test("a failed PIO write is told at that very command", () => {
    const storage = filled();
    storage.fails = () => true;
    const ide = new FakeIde(storage);
    ide.command(ATA.WRITE_SECTORS);
    ide.ata.data_length = 512;
    ide.ata.do_write();
    expect(ide.outcome).toEqual({ status: FAILED, error: ABORTED, interrupts: 1 });
  });

  test.each([ATA.READ_SECTORS, ATA.READ_DMA, ATA.WRITE_SECTORS, ATA.WRITE_DMA_EXT, ATA.READ_VERIFY, ATA.READ_VERIFY_EXT])("command %i past the end", (code) => {
    const storage = filled();
    const ide = new FakeIde(storage);
    ide.command(code, { lba: SECTORS - 1, count: 2 });
    expect(ide.outcome).toEqual({ status: FAILED, error: NOT_FOUND, interrupts: 1 });
    expect([ide.ata.passed, storage.calls]).toEqual([[], []]);
  });

  test("registers that change between command and transfer reach nothing", () => {
    const storage = filled();
    const ide = new FakeIde(storage);
    for (const [code, start] of [[ATA.READ_DMA, "do_ata_read_sectors_dma"], [ATA.WRITE_DMA, "do_ata_write_sectors_dma"]] as const) {
      ide.command(code);
      ide.ata.lba = SECTORS;
      ide.region(512);
      ide.ata[start]();
      expect(ide.outcome).toMatchObject({ status: FAILED, error: NOT_FOUND });
    }
    expect(storage.calls).toEqual([]);
  });

  test.each([
    ["ends too early", [[0x20000, 100, true]]], ["leads out of RAM", [[RAM - 10, 512, true]]], ["starts above 2 GiB", [[0xfffffff0, 512, true]]],
  ] as [string, [number, number, boolean][]][])("a table of regions that %s aborts the command", (_name, regions) => {
    const ide = new FakeIde(filled());
    ide.table(...regions);
    ide.command(ATA.READ_DMA);
    ide.ata.do_ata_read_sectors_dma();
    expect(ide.outcome).toMatchObject({ status: FAILED, error: ABORTED });
    expect(ide.ata.channel.dma_status & 2).toBe(2);
  });

  test("a table of regions that has no end, or is nowhere", () => {
    const ide = new FakeIde(filled());
    for (const place of [RAM, 0xffff_fff8, RAM - 4]) {
      ide.ata.channel.prdt_addr = place;
      ide.command(ATA.READ_DMA);
      ide.ata.do_ata_read_sectors_dma();
      expect(ide.outcome).toMatchObject({ status: FAILED, error: ABORTED });
    }
  });

  test("a read-only disk aborts writes and TRIM, and does not offer TRIM", () => {
    const storage = filled();
    const ide = new FakeIde(storage, true);
    for (const code of [ATA.WRITE_SECTORS, ATA.WRITE_DMA]) {
      ide.command(code);
      expect(ide.outcome).toMatchObject({ status: FAILED, error: ABORTED });
    }
    ide.command(ATA.DATA_SET_MANAGEMENT, { features: 1 });
    expect(ide.outcome).toMatchObject({ status: FAILED, error: ABORTED });
    ide.ata.create_identify_packet();
    expect(ide.ata.data16[169]).toBe(0);
    expect(storage.calls).toEqual([]);
  });
});

describe("one command at a time", () => {
  test("a command while another is under way is ignored, and a reset drops what it would bring", async () => {
    const storage = filled();
    storage.holds = () => true;
    const ide = new FakeIde(storage);
    ide.command(ATA.READ_SECTORS);
    ide.command(ATA.FLUSH_CACHE);
    expect([storage.calls.length, ide.outcome]).toEqual([1, { status: BUSY, error: 0, interrupts: 0 }]);
    ide.ata.device_reset();
    storage.release();
    await settle();
    expect(ide.outcome).toEqual({ status: FAILED, error: 0, interrupts: 0 });
    ide.command(ATA.FLUSH_CACHE);
    expect(ide.outcome).toMatchObject({ status: IDLE, interrupts: 1 });
  });

  test.each([["read", ATA.READ_SECTORS], ["flush", ATA.FLUSH_CACHE]] as const)("a state with a %s under way: it is done again", (operation, code) => {
    const storage = filled();
    storage.holds = () => true;
    const ide = new FakeIde(storage);
    ide.command(code);
    const state = JSON.parse(JSON.stringify(ide.disk.save())) as never;
    const other = new FakeIde(filled());
    Object.assign(other.ata, { status_reg: BUSY, current_command: code, sector_count_reg: 1 });
    other.disk.restore(state);
    expect(other.drive.statistics[operation]).toBe(1);
    expect(other.ata.interrupts).toBe(1);
  });
});

describe("TRIM and the cache", () => {
  test("neighbouring ranges become one", () => {
    expect(trimRanges(trim([8, 65535], [8 + 65535, 10], [100_000, 1], [0, 0]))).toEqual([{ sector: 8, count: 65545 }, { sector: 100_000, count: 1 }]);
  });

  test("its list comes by DMA, and discards follow", () => {
    const storage = filled();
    const ide = new FakeIde(storage);
    ide.command(ATA.DATA_SET_MANAGEMENT, { features: 1 });
    ide.region(512).set(trim([8, 8], [32, 8]));
    ide.ata.do_ata_write_sectors_dma();
    expect(storage.calls).toMatchObject([{ operation: "discard", offset: 4096, length: 4096 }, { operation: "discard", offset: 16384, length: 4096 }]);
    expect(ide.outcome).toEqual({ status: IDLE, error: 0, interrupts: 1 });
  });

  test.each([["no TRIM", { features: 0 }], ["too many blocks", { features: 1, count: 9 }], ["no block", { features: 1, count: 0 }]])("%s is aborted", (_name, registers) => {
    const ide = new FakeIde(filled());
    ide.command(ATA.DATA_SET_MANAGEMENT, registers);
    expect(ide.outcome).toMatchObject({ status: FAILED, error: ABORTED });
  });

  test("a range past the end is refused whole", () => {
    const storage = filled();
    const ide = new FakeIde(storage);
    ide.command(ATA.DATA_SET_MANAGEMENT, { features: 1 });
    ide.region(512).set(trim([0, 8], [SECTORS - 1, 2]));
    ide.ata.do_ata_write_sectors_dma();
    expect([ide.outcome.error, storage.calls]).toEqual([NOT_FOUND, []]);
  });

  test("turning the cache off flushes, and then every write does; IDENTIFY follows", () => {
    const storage = filled();
    const ide = new FakeIde(storage);
    ide.region(512);
    const write = (): void => {
      ide.command(ATA.WRITE_DMA);
      ide.ata.do_ata_write_sectors_dma();
    };
    const cache = (): number => {
      ide.ata.create_identify_packet();
      return (ide.ata.data16[85] ?? 0) & 32;
    };
    write();
    expect([storage.count("flush"), cache()]).toEqual([0, 32]);
    ide.command(ATA.SET_FEATURES, { features: 0x82 });
    write();
    expect([storage.count("flush"), cache()]).toEqual([2, 0]);
    ide.command(ATA.SET_FEATURES, { features: 0x02 });
    write();
    expect([storage.count("flush"), cache()]).toEqual([2, 32]);
  });
});

seeded("nothing that a guest does with the registers throws or reaches outside of the disk", async (random) => {
  const storage = filled();
  storage.answers = random.pick(["sync", "mixed"] as const);
  storage.fails = () => random.chance(0.05);
  const ide = new FakeIde(storage);
  const codes = Object.values(ATA);
  for (let round = 0; round < 4000; round++) {
    const wild = random.chance(0.2);
    ide.command(random.chance(0.1) ? random.int(256) : random.pick(codes), {
      lba: random.int(wild ? 2 ** 32 : SECTORS), count: random.int(wild ? 65536 : 9), features: random.pick([0, 1, 2, 0x82]),
    });
    ide.table([random.int(wild ? 2 ** 32 : RAM / 2), random.int(65536)], [random.int(RAM / 2), 0, random.chance(0.5)]);
    if (random.chance(0.1)) ide.ata.channel.prdt_addr = random.pick([0x100, 0x100, random.int(2 ** 32)]);
    if (random.chance(0.1)) ide.ata.lba = random.int(2 ** 32);
    const { current_command: current } = ide.ata;
    // As v86's bus master does: it starts what the current command is.
    if (current === ATA.READ_DMA || current === ATA.READ_DMA_EXT) ide.ata.do_ata_read_sectors_dma();
    else if (current === ATA.WRITE_DMA || current === ATA.WRITE_DMA_EXT) ide.ata.do_ata_write_sectors_dma();
    if (random.chance(0.02)) ide.ata.device_reset();
    if (random.chance(0.1)) await settle();
  }
  expect(storage.calls.length).toBeGreaterThan(300);
  for (const { offset, length } of storage.calls) expect(offset + length).toBeLessThanOrEqual(SIZE);
});
