import { createHook } from "node:async_hooks";
import { describe, expect, test } from "vitest";
import { GuestDisk } from "../support/guest-disk.ts";
import { Random, seeded } from "../support/random.ts";
import {
  DISCARD, F_CONFIG_WCE, F_EVENT_IDX, F_FLUSH, F_INDIRECT, FakeDriver, FLUSH, GET_ID, IN, INDIRECT, IOERR, NEEDS_RESET, NEXT, OK, OUT, PENDING, RAM,
  UNSUPP, WRITE, WRITE_ZEROES,
} from "./fake-driver.ts";

const SIZE = 1 << 20;
const settle = (): Promise<void> => new Promise((resolve) => { setTimeout(resolve, 5); });

function disk(answers: GuestDisk["answers"] = "sync"): GuestDisk {
  const storage = new GuestDisk(new Random(7).bytes(SIZE));
  storage.answers = answers;
  return storage;
}

function content(storage: GuestDisk, offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const { answers } = storage;
  storage.answers = "sync";
  void storage.read(offset, bytes);
  storage.answers = answers;
  return bytes;
}

function started(storage = disk(), features?: number): FakeDriver {
  const driver = new FakeDriver(storage);
  driver.startModern(features);
  return driver;
}

function ranges(...list: readonly [sector: number, count: number, flags?: number][]): Uint8Array {
  const bytes = new Uint8Array(16 * list.length);
  const view = new DataView(bytes.buffer);
  for (const [index, [sector, count, flags = 0]] of list.entries()) {
    view.setUint32(16 * index, sector, true);
    view.setUint32(16 * index + 8, count, true);
    view.setUint32(16 * index + 12, flags, true);
  }
  return bytes;
}

function randomRequest(driver: FakeDriver, random: Random): void {
  const options = { sector: random.int(SIZE / 512 + 4), segment: random.pick([100, 512, 4096]), indirect: random.chance(0.3), notify: false };
  const type = random.pick([IN, IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, random.int(2 ** 32)]);
  if (type === IN || type === GET_ID) driver.request(type, { ...options, into: 512 * random.int(5) });
  else if (type === DISCARD || type === WRITE_ZEROES) driver.request(type, { ...options, out: ranges([random.int(SIZE / 512), random.int(9), random.int(2)]) });
  else driver.request(type, { ...options, out: random.bytes(512 * random.int(5)) });
}

describe("requests", () => {
  for (const way of ["modern", "legacy"] as const) {
    for (const segment of [1 << 20, 512, 700]) {
      test(`${way}: read, write, flush, in segments of ${segment}`, () => {
        const storage = disk();
        const driver = new FakeDriver(storage);
        if (way === "modern") driver.startModern();
        else driver.startLegacy();
        const read = driver.request(IN, { sector: 3, into: 4096, segment });
        expect([read.status(), Buffer.compare(read.data(), content(storage, 1536, 4096))]).toEqual([OK, 0]);
        const out = new Random(1).bytes(5 * 512);
        expect(driver.request(OUT, { sector: 9, out, segment }).status()).toBe(OK);
        expect(Buffer.compare(content(storage, 9 * 512, out.length), out)).toBe(0);
        expect(driver.request(FLUSH).status()).toBe(OK);
        expect(storage.count("flush")).toBe(1);
        expect(driver.used().map(({ length }) => length)).toEqual([4097, 1, 1]);
        expect(driver.line).toBe(true);
        expect(way === "modern" ? driver.modern(0x40, 1) : driver.legacy(19, 1)).toBe(1);
        expect(driver.line).toBe(false);
      });
    }
  }

  test("an indirect table does the same, and the JIT hears of all that was written", () => {
    const driver = started();
    const read = driver.request(IN, { into: 2048, segment: 512, indirect: true });
    expect([read.status(), read.data()]).toEqual([OK, content(disk(), 0, 2048)]);
    expect(driver.memory.dirty.filter(([, length]) => length === 512)).toHaveLength(4);
  });

  test("the identity, cut to what the driver has room for", () => {
    const driver = started();
    expect(Buffer.from(driver.request(GET_ID, { into: 20 }).data()).toString()).toBe("virtio0".padEnd(20, "\0"));
    expect(Buffer.from(driver.request(GET_ID, { into: 3 }).data()).toString()).toBe("vir");
  });

  test("discard and write zeroes, several ranges at once; the unmap flag decides over the space", () => {
    const storage = disk();
    const driver = started(storage);
    expect(driver.request(DISCARD, { out: ranges([8, 8], [100, 1]) }).status()).toBe(OK);
    expect(driver.request(WRITE_ZEROES, { out: ranges([16, 8, 1], [32, 8]) }).status()).toBe(OK);
    expect(storage.calls).toMatchObject([
      { operation: "discard", offset: 4096, length: 4096 }, { operation: "discard", offset: 51200, length: 512 },
      { operation: "zero", offset: 8192, length: 4096, keep: false }, { operation: "zero", offset: 16384, length: 4096, keep: true },
    ]);
  });

  test("what the specification does not allow is refused without touching the storage", () => {
    const storage = disk();
    const driver = started(storage);
    const statuses = [
      driver.request(99), driver.request(DISCARD, { out: ranges([0, 8, 1]) }), driver.request(WRITE_ZEROES, { out: ranges([0, 8, 2]) }),
      driver.request(DISCARD, { out: ranges([SIZE / 512 - 1, 2]) }), driver.request(DISCARD, { out: new Uint8Array(17) }), driver.request(DISCARD),
      driver.request(DISCARD, { out: ranges(...Array.from({ length: 17 }, (_, i): [number, number] => [i, 1])) }),
      driver.request(IN, { sector: SIZE / 512, into: 512 }), driver.request(IN, { sector: 2 ** 40, into: 512 }), driver.request(IN, { into: 511 }),
      driver.request(OUT, { sector: SIZE / 512 - 1, out: new Uint8Array(1024) }),
    ].map((request) => request.status());
    expect(statuses).toEqual([UNSUPP, UNSUPP, UNSUPP, IOERR, IOERR, IOERR, IOERR, IOERR, IOERR, IOERR, IOERR]);
    expect(storage.calls).toEqual([]);
  });

  test("a failing storage is an I/O error, now or later", async () => {
    for (const answers of ["sync", "async"] as const) {
      const storage = disk(answers);
      storage.fails = () => true;
      const driver = started(storage);
      const requests = [driver.request(IN, { into: 512 }), driver.request(OUT, { out: new Uint8Array(512) }), driver.request(FLUSH), driver.request(DISCARD, { out: ranges([0, 1]) })];
      await settle();
      expect(requests.map((request) => request.status())).toEqual([IOERR, IOERR, IOERR, IOERR]);
      expect(driver.drive.statistics.failed).toBe(4);
    }
  });

  test("a read-only drive says so, offers no discard, and fails writes", () => {
    const storage = disk();
    const driver = new FakeDriver(storage, undefined, true);
    driver.startModern();
    driver.modern(0, 4, 0);
    const offered = driver.modern(4, 4);
    expect([offered & (1 << 5), offered & (1 << 13), offered & (1 << 14)]).toEqual([1 << 5, 0, 0]);
    expect(driver.request(OUT, { out: new Uint8Array(512) }).status()).toBe(IOERR);
    expect(driver.request(DISCARD, { out: ranges([0, 1]) }).status()).toBe(IOERR);
    expect(driver.request(IN, { into: 512 }).status()).toBe(OK);
    expect(storage.count("write") + storage.count("discard")).toBe(0);
  });
});

describe("write cache", () => {
  const write = (driver: FakeDriver): void => void driver.request(OUT, { out: new Uint8Array(512) });

  test.each([
    ["a driver that cannot flush", 0, undefined, 1], ["one that can", F_FLUSH, undefined, 0],
    ["one that may turn the cache off, and did not", F_FLUSH | F_CONFIG_WCE, 1, 0], ["and did", F_FLUSH | F_CONFIG_WCE, 0, 1],
  ])("%s", (_name, features, writeback, flushes) => {
    const storage = disk();
    const driver = started(storage, features);
    if (writeback !== undefined) driver.modern(0x80 + 32, 1, writeback);
    write(driver);
    expect(storage.count("flush")).toBe(flushes);
    expect(storage.calls.at(-1)?.operation).toBe(flushes ? "flush" : "write");
  });

  test("a reset turns it on again", () => {
    const driver = started();
    driver.modern(0x80 + 32, 1, 0);
    expect(driver.modern(0x80 + 32, 1)).toBe(0);
    driver.modern(20, 1, 0);
    expect(driver.modern(0x80 + 32, 1)).toBe(1);
  });
});

describe("notifications", () => {
  test("event index: one interrupt for a batch, when the driver wants it", () => {
    const driver = started(disk(), F_FLUSH | F_EVENT_IDX);
    driver.interruptAt(2);
    for (let i = 0; i < 2; i++) driver.request(FLUSH);
    expect(driver.interrupts).toBe(0);
    driver.request(FLUSH);
    expect(driver.interrupts).toBe(1);
    expect(driver.notifyAt).toBe(3);
  });

  test("event index across the wrap of 16 bits", () => {
    const driver = started(disk(), F_FLUSH | F_EVENT_IDX);
    const flush = driver.header(FLUSH);
    const status = driver.allocate(1);
    for (let i = 0; i < 65_534; i++) {
      driver.interruptAt(i - 1);
      driver.chain([{ address: flush, length: 16, flags: 0 }, { address: status, length: 1, flags: WRITE }]);
      driver.notify();
    }
    expect(driver.interrupts).toBe(0);
    driver.interruptAt(65_536);
    for (let i = 0; i < 3; i++) driver.request(FLUSH, { notify: i === 2 });
    expect(driver.interrupts).toBe(1);
  });

  test("the flag against interrupts, and one interrupt for a batch without event index", () => {
    const driver = started();
    driver.request(FLUSH, { notify: false });
    driver.request(FLUSH);
    expect(driver.interrupts).toBe(1);
    driver.modern(0x40, 1);
    driver.suppressInterrupts();
    driver.request(FLUSH);
    expect(driver.interrupts).toBe(1);
  });
});

describe("negotiation", () => {
  test("features that were not offered, and a modern driver without VERSION_1, are turned down", () => {
    const driver = new FakeDriver(disk());
    expect(driver.startModern(1 << 3)).toBe(false);
    driver.modern(20, 1, 0);
    driver.modern(20, 1, 11);
    expect(driver.status & 8).toBe(0);
    expect(driver.startModern()).toBe(true);
  });

  test.each([["zero", 0], ["no power of two", 100], ["more than the device has", 512]])("a queue size of %s needs a reset", (_name, size) => {
    const driver = new FakeDriver(disk());
    driver.startModern(F_FLUSH, { size });
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
  });

  test("a smaller queue works", () => {
    const driver = new FakeDriver(disk());
    driver.startModern(F_FLUSH, { size: 8 });
    for (let i = 0; i < 30; i++) expect(driver.request(FLUSH).status()).toBe(OK);
  });

  test("a queue outside of RAM needs a reset, and after one all is well", () => {
    const driver = new FakeDriver(disk());
    driver.modern(20, 1, 11);
    driver.modern(52, 4, 1);
    driver.modern(28, 2, 1);
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    driver.startModern();
    expect(driver.request(FLUSH).status()).toBe(OK);
  });

  test("the configuration: capacity, also of 8 TiB, and narrow reads", () => {
    const driver = new FakeDriver(new GuestDisk(2 ** 43 + 1));
    expect(driver.modern(0x80, 4) + driver.modern(0x84, 4) * 2 ** 32).toBe(2 ** 34 + 1);
    expect(driver.legacy(20, 4) + driver.legacy(24, 4) * 2 ** 32).toBe(2 ** 34 + 1);
    expect([0, 1, 2, 3].map((byte) => driver.modern(0x80 + 20 + byte, 1))).toEqual([0, 2, 0, 0]);
    expect(driver.modern(18, 1)).toBe(1);
  });
});

describe("a driver gone wrong", () => {
  const bad: [string, (driver: FakeDriver) => void][] = [
    ["descriptors in a circle", (driver) => {
      const address = driver.header(IN);
      driver.write(0x1000, 0, { address, length: 16, flags: NEXT, next: 1 });
      driver.write(0x1000, 1, { address, length: 16, flags: NEXT, next: 0 });
      driver.offer(0);
    }],
    ["a buffer outside of RAM", (driver) => void driver.chain([{ address: RAM - 8, length: 16, flags: 0 }, { address: 0, length: 1, flags: WRITE }])],
    ["a buffer above 4 GiB", (driver) => void driver.chain([{ address: 2 ** 40, length: 16, flags: 0 }, { address: 0, length: 1, flags: WRITE }])],
    ["no room for the status", (driver) => void driver.chain([{ address: driver.header(FLUSH), length: 16, flags: 0 }])],
    ["only an empty buffer for the status", (driver) => void driver.chain([{ address: driver.header(FLUSH), length: 16, flags: 0 }, { address: 0, length: 0, flags: WRITE }])],
    ["readable after writable", (driver) => void driver.chain([{ address: 0, length: 16, flags: WRITE }, { address: driver.header(FLUSH), length: 16, flags: 0 }])],
    ["a descriptor that does not exist", (driver) => driver.offer(300)],
    ["an indirect table of 17 bytes", (driver) => void driver.chain([{ address: 0x9000, length: 17, flags: INDIRECT }])],
    ["an empty indirect table", (driver) => void driver.chain([{ address: 0x9000, length: 0, flags: INDIRECT }])],
    ["an indirect table in another", (driver) => void driver.indirect([{ address: 0x9000, length: 16, flags: INDIRECT }])],
    ["more requests than the queue holds", (driver) => driver.view.setUint16(0x3002, 300, true)],
  ];
  test.each(bad)("%s: the device needs a reset, and says so", (_name, work) => {
    const driver = started();
    work(driver);
    driver.notify();
    expect(driver.status & NEEDS_RESET).toBe(NEEDS_RESET);
    expect(driver.modern(0x40, 1)).toBe(2);
    driver.startModern();
    expect(driver.request(FLUSH).status()).toBe(OK);
  });

  test("a short header is an I/O error, since there is room to say so", () => {
    const driver = started();
    const status = driver.allocate(Uint8Array.of(PENDING));
    driver.chain([{ address: driver.header(FLUSH), length: 15, flags: 0 }, { address: status, length: 1, flags: WRITE }]);
    driver.notify();
    expect([driver.memory.ram[status], driver.status & NEEDS_RESET]).toEqual([IOERR, 0]);
  });

  seeded("nothing that a guest writes into its queue throws, hangs or reaches outside of the disk", (random) => {
    const storage = disk(random.pick(["sync", "mixed"] as const));
    const driver = started(storage, random.pick([F_FLUSH, F_FLUSH | F_INDIRECT | F_EVENT_IDX]));
    for (let round = 0; round < 3000; round++) {
      if (round % 20 === 0 || driver.status & NEEDS_RESET) driver.startModern();
      for (let i = random.int(3); i >= 0; i--) randomRequest(driver, random);
      // Any byte of the rings, the descriptors or the requests; and sometimes an address, a length and flags anew.
      if (random.chance(0.4)) driver.memory.ram[random.pick([0x1000 + random.int(512), 0x3000 + random.int(16), 0x8000 + random.int(4096)])] = random.int(256);
      if (random.chance(0.3)) {
        const address = random.pick([random.int(RAM), 0x3000, 0x4000, RAM - random.int(20), 2 ** 32 + random.int(99)]);
        driver.write(0x1000, random.int(8), { address, length: 512 * random.int(9), flags: random.int(8), next: random.int(20) });
      }
      driver.notify();
    }
    expect(storage.calls.length).toBeGreaterThan(100);
    for (const { offset, length } of storage.calls) expect(offset + length).toBeLessThanOrEqual(SIZE);
  });
});

describe("asynchronous storages", () => {
  test("requests complete out of order; the interrupt comes with each", async () => {
    const storage = disk();
    storage.holds = ({ offset }) => offset === 0;
    const driver = started(storage);
    const slow = driver.request(IN, { sector: 0, into: 512 });
    const quick = driver.request(IN, { sector: 1, into: 512 });
    expect([slow.status(), quick.status(), driver.used().map(({ head }) => head)]).toEqual([PENDING, OK, [quick.head]]);
    expect(driver.modern(0x40, 1)).toBe(1);
    storage.release();
    await settle();
    expect([slow.status(), driver.used().map(({ head }) => head), driver.modern(0x40, 1)]).toEqual([OK, [slow.head], 1]);
    expect(driver.drive.idle()).toBeUndefined();
  });

  test("what completes after a reset touches neither memory nor queue", async () => {
    const storage = disk();
    storage.holds = () => true;
    const driver = started(storage);
    const read = driver.request(IN, { into: 512 });
    driver.modern(20, 1, 0);
    driver.startModern();
    const before = driver.memory.ram.slice();
    storage.release();
    await driver.drive.idle();
    expect(Buffer.compare(driver.memory.ram, before)).toBe(0);
    expect([read.status(), driver.interrupts]).toEqual([0xee, 0]);
  });

  test("a state with requests in flight: they are done again in the restored machine, and only there", async () => {
    const storage = disk();
    storage.holds = () => true;
    const driver = started(storage);
    const read = driver.request(IN, { sector: 5, into: 1024 });
    const write = driver.request(OUT, { sector: 50, out: new Uint8Array(512).fill(9) });
    const state = JSON.parse(JSON.stringify(driver.device.save())) as never;
    const ram = driver.memory.ram.slice();

    const other = new FakeDriver(storage);
    other.memory.ram.set(ram);
    storage.holds = () => false;
    other.device.restore(state);
    const wanted = content(storage, 5 * 512, 1024);
    expect(Buffer.compare(other.memory.ram.subarray(read.target, read.target + 1024), wanted)).toBe(0);
    expect(Buffer.compare(read.data(), wanted)).not.toBe(0);
    expect(other.used().map(({ head }) => head)).toEqual([read.head, write.head]);
    expect(content(storage, 50 * 512, 1)[0]).toBe(9);
    expect(other.line).toBe(true);
    expect(other.device.requestsInFlight).toBe(0);
  });
});

test("with a synchronous storage no promise is made from request to completion", () => {
  const driver = started();
  let promises = 0;
  const hook = createHook({ init: (_id, type) => { if (type === "PROMISE") promises++; } });
  hook.enable();
  driver.request(IN, { into: 4096 });
  driver.request(OUT, { out: new Uint8Array(4096) });
  driver.request(FLUSH);
  driver.request(DISCARD, { out: ranges([0, 8]) });
  expect(promises).toBe(0);
  void Promise.resolve();
  hook.disable();
  expect(promises).toBe(1);
  expect(driver.drive.statistics.asynchronous).toBe(0);
});
