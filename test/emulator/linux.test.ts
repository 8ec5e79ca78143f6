import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Machine } from "../../emulator/index.ts";
import { nodeWasm } from "../../emulator/node.ts";
import { debian } from "../../guests/catalog.ts";
import { GuestDisk } from "../support/guest-disk.ts";
import { biosImages, rawGuest, requireGuests } from "../support/guests.ts";
import { shell } from "../support/machine.ts";
import { tempFolder } from "../support/temp.ts";

const SCRATCH = 64 << 20;
const BOOT_TIMEOUT = 120_000;
const folder = tempFolder();
// A guest on a busy machine takes its time.
vi.setConfig({ testTimeout: 180_000 });

describe.skipIf(!requireGuests(debian))("Debian sees disks that keep their word", () => {
  let machine: Machine;
  let root: GuestDisk;
  const scratch = { sdb: new GuestDisk(SCRATCH), vda: new GuestDisk(SCRATCH) };
  const vdb = new GuestDisk(SCRATCH);
  const cd = new GuestDisk(1 << 20);

  async function make(): Promise<Machine> {
    return await Machine.create({
      ...biosImages(), wasm: await nodeWasm(), memory: 128, cdrom: cd,
      drives: [
        { storage: root, bus: "ide", identity: "root" }, { storage: scratch.sdb, bus: "ide" },
        { storage: scratch.vda, bus: "virtio", serial: "WD-1234" }, { storage: vdb, bus: "virtio", readOnly: true },
      ],
    });
  }

  beforeAll(async () => {
    root = new GuestDisk(rawGuest(debian, folder));
    machine = await make();
    machine.start();
    await machine.waitForSerial(debian.prompt, BOOT_TIMEOUT);
    await shell(machine, "dmesg -n 1; for disk in sda sdb; do echo 3 > /sys/block/$disk/device/timeout; done");
  });
  afterAll(async () => await machine.destroy());

  const run = (command: string): Promise<string> => shell(machine, command);

  test("sizes, serial number, read-only flag", async () => {
    expect(await run("cat /sys/block/{sdb,vda,vdb}/size /sys/block/vda/serial; echo")).toBe("131072\n131072\n131072\nWD-1234");
    expect(await run("cat /sys/block/{vda,vdb}/ro")).toBe("0\n1");
    expect(await run("cat /sys/block/sdb/queue/rotational")).toBe("0");
  });

  for (const name of ["sdb", "vda"] as const) {
    describe(`disk ${name}`, () => {
      const disk = scratch[name];

      test("has a write cache, and fsync reaches the storage's flush after the data", async () => {
        expect(await run(`cat /sys/block/${name}/queue/write_cache`)).toBe("write back");
        disk.calls.length = 0;
        await run(`dd if=/dev/urandom of=/dev/${name} bs=64k count=4 conv=fsync`);
        const operations = disk.calls.map(({ operation }) => operation).filter((operation) => operation !== "read");
        expect(operations.at(-1)).toBe("flush");
        expect(operations.filter((operation) => operation === "write").length).toBeGreaterThan(0);
      });

      test("with the cache turned off every write is flushed before it completes", async () => {
        const [control, cacheOn] = name === "sdb" ? ["/sys/class/scsi_disk/0:0:1:0/cache_type", "write back"] : ["/sys/block/vda/cache_type", "write back"];
        await run(`echo "write through" > ${control}`);
        disk.calls.length = 0;
        await run(`dd if=/dev/zero of=/dev/${name} bs=4k count=5 oflag=direct`);
        expect(disk.calls.filter(({ operation }) => operation !== "read").map(({ operation }) => operation).join(" ")).toBe("write flush ".repeat(5).trim());
        await run(`echo "${cacheOn}" > ${control}`);
        disk.calls.length = 0;
        await run(`dd if=/dev/zero of=/dev/${name} bs=4k count=5 oflag=direct`);
        expect(disk.count("flush")).toBe(0);
      });

      test("blkdiscard and fstrim reach discard", async () => {
        disk.calls.length = 0;
        expect(await run(`blkdiscard -o 1M -l 8M /dev/${name} && echo ok`)).toBe("ok");
        expect(disk.calls.find(({ operation }) => operation === "discard")).toMatchObject({ offset: 1 << 20, length: 8 << 20 });
        disk.calls.length = 0;
        expect(await run(`mkfs.ext4 -qF /dev/${name} && mount /dev/${name} /mnt && fstrim -v /mnt && umount /mnt`)).toContain("trimmed");
        expect(disk.count("discard")).toBeGreaterThan(0);
      });

      test("a file survives being dropped from the guest's cache, storage asynchronous", async () => {
        disk.answers = "mixed";
        const sums = await run(`mount /dev/${name} /mnt && dd if=/dev/urandom of=/mnt/file bs=1M count=20 2>/dev/null && sync && md5sum < /mnt/file`
          + " && echo 3 > /proc/sys/vm/drop_caches && md5sum < /mnt/file; umount /mnt");
        disk.answers = "sync";
        const [before, after] = sums.split("\n");
        expect(before).toMatch(/^[0-9a-f]{32}/);
        expect(after).toBe(before);
      });

      test("a failed read is EIO and in the kernel's log", async () => {
        await run("dmesg -c > /dev/null");
        disk.fails = ({ operation }) => operation === "read";
        expect(await run(`dd if=/dev/${name} of=/dev/null bs=4k count=1 skip=3000 iflag=direct`)).toContain("Input/output error");
        disk.fails = () => false;
        expect(await run("dmesg")).toMatch(new RegExp(`I/O error, dev ${name}, sector 24000`));
        expect(await run(`dd if=/dev/${name} of=/dev/null bs=4k count=1 skip=3000 iflag=direct && echo fine`)).toContain("fine");
      });

      test("a failed write is EIO, and so is a failed flush", async () => {
        disk.fails = ({ operation }) => operation === "write";
        expect(await run(`dd if=/dev/zero of=/dev/${name} bs=4k count=1 oflag=direct`)).toContain("Input/output error");
        disk.fails = ({ operation }) => operation === "flush";
        expect(await run(`dd if=/dev/zero of=/dev/${name} bs=4k count=1 conv=fsync`)).toContain("Input/output error");
        disk.fails = () => false;
        expect(await run(`dd if=/dev/zero of=/dev/${name} bs=4k count=1 conv=fsync && echo fine`)).toContain("fine");
      });
    });
  }

  test("blkdiscard -z reaches zero and keeps the space: Linux does not ask to free it", async () => {
    scratch.vda.calls.length = 0;
    await run("blkdiscard -z -o 1M -l 2M /dev/vda");
    expect(scratch.vda.calls.find(({ operation }) => operation === "zero")).toMatchObject({ offset: 1 << 20, length: 2 << 20, keep: true });
  });

  test("a disk that stays silent is reset by the guest; the late answer spoils nothing", async () => {
    const { sdb } = scratch;
    await run("dd if=/dev/urandom of=/dev/sdb bs=1M count=1 conv=fsync 2>/dev/null");
    sdb.holds = ({ operation }) => operation === "read";
    const command = "dd if=/dev/sdb bs=4k count=1 iflag=direct 2>/dev/null | md5sum";
    machine.serial.send(`${command}\n`);
    await expect.poll(() => sdb.held, { timeout: 20_000 }).toBeGreaterThan(1);
    sdb.release();
    const late = /[0-9a-f]{32}/.exec(await machine.waitForSerial(`\n${debian.prompt}`))?.[0];
    expect(late).toBeDefined();
    expect(await run(command)).toContain(late);
  });

  test("a state saved under load goes on in another machine, on both buses", async () => {
    for (const disk of Object.values(scratch)) disk.answers = "mixed";
    await run("mkfs.ext4 -qF /dev/sdb; mkfs.ext4 -qF /dev/vda; mkdir -p /a /b; mount /dev/sdb /a; mount /dev/vda /b; echo ready");
    machine.serial.send("for d in /a /b; do (for i in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=$d/$i bs=256k count=4 conv=fsync; done) 2>/dev/null & done; wait; cd /a; md5sum ?; cd /b; md5sum ?; cd; echo all written\n");
    await expect.poll(() => scratch.vda.count("write"), { timeout: 10_000, interval: 5 }).toBeGreaterThan(20);
    const state = await machine.save();
    await machine.stop();
    const other = await make();
    await other.restore(state);
    const first = machine;
    machine = other;
    await first.destroy();
    machine.start();
    const written = (await machine.waitForSerial(/\nall written/, 120_000)).match(/[0-9a-f]{32}/g);
    await machine.waitForSerial(debian.prompt);
    const read = (await run("echo 3 > /proc/sys/vm/drop_caches; cd /a; md5sum ?; cd /b; md5sum ?; cd; umount /a /b")).match(/[0-9a-f]{32}/g);
    for (const disk of Object.values(scratch)) disk.answers = "sync";
    expect(written).toHaveLength(16);
    expect(read).toEqual(written);
    expect(await run("e2fsck -fn /dev/sdb >/dev/null 2>&1 && e2fsck -fn /dev/vda >/dev/null 2>&1 && echo clean")).toBe("clean");
  });
});

describe.skipIf(!requireGuests(debian))("Debian on virtio", () => {
  const names = ["vdb", "vdc", "vdd", "vde", "vdf"];
  const disks = names.map(() => new GuestDisk(SCRATCH));
  let machine: Machine;
  beforeAll(async () => {
    const root = new GuestDisk(rawGuest(debian, folder));
    for (const disk of disks) disk.answers = "mixed";
    machine = await Machine.create({
      ...biosImages(), wasm: await nodeWasm(), memory: 128, drives: [root, ...disks].map((storage) => ({ storage, bus: "virtio" as const })),
    });
    machine.start();
    await machine.waitForSerial(debian.prompt, BOOT_TIMEOUT);
  });
  afterAll(async () => await machine.destroy());

  test("six disks share two interrupts, and none is lost under load", async () => {
    expect((await shell(machine, "grep virtio /proc/interrupts | wc -l"))).toBe("2");
    const jobs = names.map((name) => `(dd if=/dev/urandom of=/dev/${name} bs=16k count=100 oflag=direct; dd if=/dev/${name} of=/dev/null bs=4k count=400 iflag=direct) 2>/dev/null &`).join(" ");
    // Linux waits for a lost interrupt of virtio for ever.
    expect(await shell(machine, `${jobs} wait; echo all done`, 120_000)).toContain("all done");
    for (const disk of disks) expect(disk.count("write")).toBeGreaterThanOrEqual(100);
  });
});
