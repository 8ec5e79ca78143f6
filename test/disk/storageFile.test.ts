import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync, chmodSync, existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { libc } from "../../disk/storage/libc.node.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { expectBytes } from "../support/bytes.ts";
import { disk86 } from "../support/cli.ts";
import { Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const folder = tempFolder();
let files = 0;
const fresh = (): string => join(folder, `file${files++}`);
const bytesOf = (storage: FileStorage, offset: number, length: number): Uint8Array => {
  const into = new Uint8Array(length).fill(0xee);
  storage.read(offset, into);
  return into;
};
const allocated = (path: string): number => statSync(path).blocks * 512;
const fails = (kind: string, words: RegExp): object => expect.objectContaining({ name: "DiskError", kind, message: expect.stringMatching(words) });

describe("contents", () => {
  seeded("any sequence of changes leaves what it leaves in memory", (random) => {
    const path = fresh();
    const file = FileStorage.open(path, { mode: "create" });
    const model = new MemoryStorage();
    for (let i = 0; i < 400; i++) {
      const offset = random.int(300_000);
      const length = random.int(random.chance(0.2) ? 70_000 : 3000);
      const bytes = random.bytes(length);
      const keep = random.chance(0.5);
      const size = random.int(400_000);
      const change = random.int(8);
      for (const storage of [file, model]) {
        if (change < 4) void storage.write(offset, bytes);
        else if (change < 6) void storage.zero(offset, length, keep);
        else if (change < 7) void storage.truncate(size);
      }
      expect(file.size).toBe(model.size);
      const at = random.int(400_000);
      const want = new Uint8Array(5000).fill(1);
      void model.read(at, want);
      expectBytes(bytesOf(file, at, 5000), want);
    }
    file.flush();
    file.close();
    expectBytes(readFileSync(path), model.bytes);
  });

  test("bytes past the end read as zero and leave nothing of the old buffer", () => {
    const path = fresh();
    writeFileSync(path, "abc");
    const file = FileStorage.open(path);
    expect([...bytesOf(file, 1, 5)]).toEqual([98, 99, 0, 0, 0]);
    expect([...bytesOf(file, 100, 3)]).toEqual([0, 0, 0]);
    file.close();
  });

  test("a file that another program cuts short is an error, not zeros", () => {
    const path = fresh();
    writeFileSync(path, new Uint8Array(8192).fill(7));
    const file = FileStorage.open(path);
    truncateSync(path, 4096);
    expect(() => file.read(4000, new Uint8Array(200))).toThrow(fails("io", /became shorter.*0x1000/));
    file.close();
  });

  test("replace empties an existing file, write keeps it", () => {
    const path = fresh();
    writeFileSync(path, "old contents");
    const kept = FileStorage.open(path, { mode: "write" });
    expect(kept.size).toBe(12);
    kept.close();
    const replaced = FileStorage.open(path, { mode: "replace" });
    expect(replaced.size).toBe(0);
    replaced.close();
    expect(statSync(path).size).toBe(0);
  });

  test("after close every call fails, and never reaches another file of the same number", () => {
    const path = fresh();
    const file = FileStorage.open(path, { mode: "create" });
    file.close();
    const other = FileStorage.open(path, { mode: "write" });
    for (const call of [() => file.read(0, new Uint8Array(1)), () => file.write(0, new Uint8Array(1)), () => file.truncate(9), () => file.flush()]) {
      expect(call).toThrow(fails("io", /closed/));
    }
    file.close();
    expect(other.size).toBe(0);
    other.close();
  });
});

describe.skipIf(!libc())("holes", () => {
  const data = new Uint8Array(256 << 10).fill(5);

  test("discard and zero give space back; zero with keep owns it", () => {
    const path = fresh();
    const file = FileStorage.open(path, { mode: "create" });
    void file.write(0, data);
    file.flush();
    expect(allocated(path)).toBeGreaterThanOrEqual(data.length);
    file.discard(0, 64 << 10);
    file.flush();
    expect(allocated(path)).toBeLessThanOrEqual(192 << 10);
    file.zero(64 << 10, 128 << 10);
    file.flush();
    expect(allocated(path)).toBeLessThanOrEqual(64 << 10);
    file.zero(0, 256 << 10, true);
    file.flush();
    expect(allocated(path)).toBeGreaterThanOrEqual(256 << 10);
    expectBytes(bytesOf(file, 0, 256 << 10), new Uint8Array(256 << 10));
    expect(file.size).toBe(256 << 10);
    file.close();
  });

  test("dataAt finds what lies between holes, and never calls data a hole", () => {
    const path = fresh();
    const file = FileStorage.open(path, { mode: "create" });
    file.truncate(16 << 20);
    void file.write(4 << 20, data);
    void file.write(12 << 20, data);
    file.flush();
    const found: [boolean, number][] = [];
    for (let at = 0; at < file.size;) {
      const { data, length } = file.dataAt(at);
      found.push([data, length]);
      at += length;
    }
    expect(found).toEqual([[false, 4 << 20], [true, 256 << 10], [false, (8 << 20) - (256 << 10)], [true, 256 << 10], [false, (4 << 20) - (256 << 10)]]);
    expect(file.dataAt((4 << 20) + 1000)).toEqual({ data: true, length: (256 << 10) - 1000 });
    file.close();
  });
});

describe("what cannot be opened is refused by name", () => {
  test.each([
    ["a missing file", () => FileStorage.open(join(folder, "missing")), "not-found", /missing: no such file/],
    ["a missing folder", () => FileStorage.open(join(folder, "no/file"), { mode: "create" }), "not-found", /no such file/],
    ["a folder", () => FileStorage.open(folder), "invalid-argument", /directory/],
    ["a folder for writing", () => FileStorage.open(folder, { mode: "write" }), "invalid-argument", /directory/],
    ["a device of characters", () => FileStorage.open("/dev/full", { mode: "write" }), "invalid-argument", /character device/],
    ["a program that is running", () => FileStorage.open(process.execPath, { mode: "write" }), "locked", /in use by the system/],
  ])("%s", (_, open, kind, words) => {
    expect(open).toThrow(fails(kind, words));
  });

  test("create does not overwrite, not even through a dangling link", () => {
    const path = fresh();
    writeFileSync(path, "mine");
    symlinkSync(join(folder, "nowhere"), `${path}.link`);
    expect(() => FileStorage.open(path, { mode: "create" })).toThrow(fails("exists", /already exists/));
    expect(() => FileStorage.open(`${path}.link`, { mode: "create" })).toThrow(fails("exists", /already exists/));
    expect(readFileSync(path, "utf8")).toBe("mine");
    expect(existsSync(join(folder, "nowhere"))).toBe(false);
  });

  test.skipIf(!requireTool("mkfifo"))("a pipe, without waiting for its other end", () => {
    const path = fresh();
    runTool("mkfifo", [path]);
    expect(() => FileStorage.open(path)).toThrow(fails("invalid-argument", /a pipe/));
  });

  test("a read-only one refuses every change", () => {
    const path = fresh();
    writeFileSync(path, "abc");
    chmodSync(path, 0o444);
    const file = FileStorage.open(path);
    for (const call of [() => file.write(0, new Uint8Array(1)), () => file.zero(0, 1), () => file.discard(0, 1), () => file.truncate(0)]) {
      expect(call).toThrow(fails("read-only", /opened read-only/));
    }
    file.flush();
    file.close();
  });
});

describe("a full device", () => {
  const mount = join(folder, "small");
  let mounted = false;

  beforeAll(() => {
    mkdirSync(mount);
    mounted = tryTool("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", mount]).status === 0;
    if (!mounted) console.warn("SKIPPED: a full device needs the right to mount a tmpfs");
  });
  afterAll(() => {
    if (mounted) runTool("umount", [mount]);
  });

  test("a write that fits only in part fails as no-space, says where, and knows the size it left", (context) => {
    context.skip(!mounted);
    const path = join(mount, "image");
    const file = FileStorage.open(path, { mode: "create" });
    void file.write(0, new Uint8Array(1000).fill(1));
    expect(() => file.write(1000, new Uint8Array(3 << 20).fill(2))).toThrow(fails("no-space", /no space left on the device/));
    expect(file.size).toBe(statSync(path).size);
    expect([...bytesOf(file, 0, 1000)].every((byte) => byte === 1)).toBe(true);
    file.close();
    rmSync(path);
  });

  test("in the background large writes are answered later, and fail alike", async (context) => {
    context.skip(!mounted);
    const path = join(mount, "background"), file = FileStorage.open(path, { mode: "create", background: true });
    const large = file.write(100, new Uint8Array(300_000).fill(1));
    expect(large).toBeInstanceOf(Promise);
    expect(file.write(400_200, new Uint8Array(10).fill(2))).toBeUndefined();
    await large;
    expect(file.size).toBe(400_210);
    expect([...bytesOf(file, 100, 300_000)].every((byte) => byte === 1)).toBe(true);
    await expect(file.write(500_000, new Uint8Array(3 << 20))).rejects.toThrow(fails("no-space", /no space left on the device/));
    expect(file.size).toBe(statSync(path).size);
    file.close();
    rmSync(path);
  });

  test("convert names the full device, and leaves nothing there", async (context) => {
    context.skip(!mounted);
    const source = fresh();
    writeFileSync(source, new Random(3).bytes(9 << 20));
    for (const options of [["-O", "raw"], ["-O", "qcow2"], ["-c", "-O", "qcow2", "-o", "cluster_size=512"]]) {
      const { status, stderr } = await disk86("convert", "-f", "raw", ...options, source, join(mount, "out"));
      expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(/^disk86: .*no space left on the device/) });
      expect(readdirSync(mount).filter((name) => name.includes("out"))).toEqual([]);
    }
  });

  test("a read-only file system is read-only, not broken", (context) => {
    context.skip(!mounted);
    writeFileSync(join(mount, "image"), "abc");
    runTool("mount", ["-o", "remount,ro", mount]);
    expect(() => FileStorage.open(join(mount, "image"), { mode: "write" })).toThrow(fails("read-only", /read-only file system/));
    FileStorage.open(join(mount, "image")).close();
  });

  test("a size the file system cannot have is no-space, and changes nothing", () => {
    const path = fresh();
    const file = FileStorage.open(path, { mode: "create" });
    expect(() => file.truncate(2 ** 53 - 1)).toThrow(fails("no-space", /larger than/));
    expect(file.size).toBe(0);
    file.close();
  });
});

describe.skipIf(!requireTool("qemu-img", "qemu-io") || !libc())("locks, against QEMU", () => {
  /** Runs `body` while qemu-io has `path` open. */
  async function whileQemuHas(path: string, options: string[], body: () => void): Promise<void> {
    const qemu = spawn("qemu-io", [...options, path], { stdio: ["pipe", "pipe", "inherit"] });
    const ended = new Promise((resolve) => qemu.once("exit", resolve));
    await new Promise<void>((resolve) => { qemu.stdout.on("data", (text: Buffer) => text.includes("qemu-io>") && resolve()); });
    try {
      body();
    } finally {
      qemu.stdin.end("quit\n");
      await ended;
    }
  }
  const image = (format: string): string => {
    const path = fresh();
    runTool("qemu-img", ["create", "-q", "-f", format, path, "1M"]);
    return path;
  };
  const write = (path: string, format: string): string => tryTool("qemu-io", ["-f", format, "-c", "write 0 512", path]).stderr;
  const info = (path: string): string => tryTool("qemu-img", ["info", path]).stderr;

  test("what we write, QEMU neither reads nor writes, until we close it", () => {
    const path = image("qcow2");
    const file = FileStorage.open(path, { mode: "write" });
    expect(write(path, "qcow2")).toMatch(/Failed to get "write" lock/);
    expect(info(path)).toMatch(/Failed to get shared "write" lock/);
    expect(tryTool("qemu-img", ["info", "-U", path]).status).toBe(0);
    file.close();
    expect(write(path, "qcow2")).toBe("");
  });

  test("what we read, QEMU reads and does not write", () => {
    const path = image("qcow2");
    const file = FileStorage.open(path);
    expect(info(path)).toBe("");
    expect(write(path, "qcow2")).toMatch(/Failed to get "write" lock/);
    file.close();
    expect(write(path, "qcow2")).toBe("");
  });

  test.each(["qcow2", "raw"])("a %s image that QEMU writes is locked to us, unless we ask for no lock", async (format) => {
    const path = image(format);
    await whileQemuHas(path, ["-f", format], () => {
      expect(() => FileStorage.open(path, { mode: "write" })).toThrow(fails("locked", /in use by another program/));
      expect(() => FileStorage.open(path, { mode: "replace" })).toThrow(fails("locked", /in use by another program/));
      expect(() => FileStorage.open(path)).toThrow(fails("locked", /being written by another program/));
      FileStorage.open(path, { lock: false }).close();
    });
    expect(statSync(path).size).toBeGreaterThan(0);
    FileStorage.open(path, { mode: "write" }).close();
  });

  test("what QEMU reads, we read and do not write", async () => {
    const path = image("qcow2");
    await whileQemuHas(path, ["-r", "-f", "qcow2"], () => {
      FileStorage.open(path).close();
      expect(() => FileStorage.open(path, { mode: "write" })).toThrow(fails("locked", /in use/));
    });
  });

  test("two of our own exclude each other as two programs do", () => {
    const path = image("raw");
    const readers = [FileStorage.open(path), FileStorage.open(path)];
    expect(() => FileStorage.open(path, { mode: "write" })).toThrow(fails("locked", /in use/));
    for (const reader of readers) reader.close();
    const writer = FileStorage.open(path, { mode: "write" });
    expect(() => FileStorage.open(path)).toThrow(fails("locked", /being written/));
    writer.close();
  });
});

describe("a block device", () => {
  let device = "";
  const path = fresh();

  beforeAll(() => {
    writeFileSync(path, new Uint8Array(1 << 20).fill(3));
    const attached = tryTool("losetup", ["--find", "--show", path]);
    if (attached.status === 0) device = attached.stdout.trim();
    else console.warn("SKIPPED: a block device needs the right to attach a loop device");
  });
  afterAll(() => {
    if (device) runTool("losetup", ["--detach", device]);
  });

  test("has its true size, which cannot change", (context) => {
    context.skip(!device);
    const storage = FileStorage.open(device, { mode: "write" });
    expect(storage.size).toBe(1 << 20);
    expectBytes(bytesOf(storage, 5000, 4096), new Uint8Array(4096).fill(3));
    void storage.write((1 << 20) - 512, new Uint8Array(512).fill(9));
    storage.zero(1000, 3000);
    storage.zero(64 << 10, 64 << 10);
    expect(() => storage.write((1 << 20) - 511, new Uint8Array(512))).toThrow(fails("out-of-bounds", /cannot grow/));
    expect(() => storage.truncate(2 << 20)).toThrow(fails("unsupported", /size of a block device/));
    storage.flush();
    storage.close();
    const want = new Uint8Array(1 << 20).fill(3).fill(9, (1 << 20) - 512).fill(0, 1000, 4000).fill(0, 64 << 10, 128 << 10);
    expectBytes(readFileSync(path), want);
  });
});
