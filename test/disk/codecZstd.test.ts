import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { unzstd, zstdReady } from "../../disk/codecs/zstd.ts";
import { DiskError } from "../../disk/errors.ts";
import { expectBytes } from "../support/bytes.ts";
import { Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder();
const corrupt = (words: RegExp): object => expect.objectContaining({ name: "DiskError", kind: "corrupt", message: expect.stringMatching(words) });
const joined = (...parts: Uint8Array[]): Uint8Array => new Uint8Array(Buffer.concat(parts));

function zstd(bytes: Uint8Array, ...options: string[]): Uint8Array {
  const path = join(folder, "plain");
  writeFileSync(path, bytes);
  runTool("zstd", ["-q", "-f", ...options, path, "-o", `${path}.zst`]);
  return new Uint8Array(readFileSync(`${path}.zst`));
}

const skippable = (length: number): Uint8Array => {
  const frame = new Uint8Array(8 + length).fill(0x28);
  new DataView(frame.buffer).setUint32(0, 0x184d2a53, true);
  new DataView(frame.buffer).setUint32(4, length, true);
  return frame;
};

test("before it is loaded it says so; afterwards there is nothing to wait for", async () => {
  expect(() => unzstd(new Uint8Array(9), new Uint8Array(1))).toThrow(/zstdReady/);
  await zstdReady();
  expect(zstdReady()).toBeUndefined();
});

describe.skipIf(!requireTool("zstd"))("zstd", () => {
  const random = new Random(1);
  const text = random.text(65536);
  const variants: [string, Uint8Array, string[]][] = [
    ["text", text, []], ["text with a checksum", text, ["--check"]], ["text without a content size", text, ["--no-content-size", "--no-check"]],
    ["text, level 19", text, ["-19"]], ["random bytes", random.bytes(65536), []], ["zeros", new Uint8Array(65536), []],
    ["2 MiB", random.text(2 << 20), ["--no-content-size"]], ["512 bytes", random.text(512), ["--no-check"]],
  ];
  let streams: { name: string; bytes: Uint8Array; packed: Uint8Array }[];
  beforeAll(async () => {
    await zstdReady();
    streams = variants.map(([name, bytes, options]) => ({ name, bytes, packed: zstd(bytes, ...options) }));
  });

  seeded("unpacks what zstd packs, whatever follows it: garbage, or the next cluster's frame", (random) => {
    for (const { name, bytes, packed } of streams) {
      for (const tail of [new Uint8Array(0), random.bytes(random.int(600)), packed, packed.subarray(0, 7), new Uint8Array(500)]) {
        const around = new Uint8Array(bytes.length + 32).fill(0xaa);
        unzstd(joined(packed, tail), around.subarray(16, -16));
        expectBytes(around.subarray(16, -16), bytes, name);
        expect([...around.subarray(0, 16), ...around.subarray(-16)].every((byte) => byte === 0xaa)).toBe(true);
      }
    }
  });

  test("several frames, empty and skippable ones among them", () => {
    const parts = [text.subarray(0, 20_000), text.subarray(20_000, 20_001), text.subarray(20_001)];
    const [a, b, c] = parts.map((part) => zstd(part, "--no-content-size")) as [Uint8Array, Uint8Array, Uint8Array];
    const empty = zstd(new Uint8Array(0));
    const into = new Uint8Array(65536);
    unzstd(joined(a, skippable(5), b, empty, skippable(0), c, skippable(70)), into);
    expectBytes(into, text);
  });

  test("data that ends early is corrupt, wherever it ends", () => {
    for (const { bytes, packed } of streams) {
      const into = new Uint8Array(bytes.length);
      const step = Math.max(1, Math.floor(packed.length / 50));
      for (let end = 0; end < packed.length; end += step) expect(() => unzstd(packed.subarray(0, end), into)).toThrow(corrupt(/ends early/));
    }
  });

  test("too few bytes, a frame too long for its cluster, and garbage are corrupt", () => {
    const packed = zstd(text);
    expect(() => unzstd(packed, new Uint8Array(65537))).toThrow(corrupt(/ends early/));
    expect(() => unzstd(packed, new Uint8Array(65535))).toThrow(corrupt(/longer than its cluster/));
    expect(() => unzstd(new Uint8Array(100).fill(7), new Uint8Array(512))).toThrow(corrupt(/no frame/));
    expect(() => unzstd(skippable(0xfff).subarray(0, 600), new Uint8Array(512))).toThrow(corrupt(/ends early/));
    expect(() => unzstd(zstd(new Uint8Array(0)), new Uint8Array(512))).toThrow(corrupt(/ends early/));
    const bomb = zstd(new Uint8Array(64 << 20), "--no-content-size");
    const before = process.memoryUsage().arrayBuffers;
    expect(() => unzstd(bomb, new Uint8Array(65536))).toThrow(corrupt(/longer/));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(8 << 20);
  });

  seeded("damaged data ends in DiskError or in some bytes, and never spoils the next call", (random) => {
    let failures = 0;
    for (let i = 0; i < 600; i++) {
      const { bytes, packed } = random.pick(streams.filter((stream) => stream.bytes.length <= 65536));
      const broken = packed.slice();
      const where = random.chance(0.5) ? Math.min(24, broken.length) : broken.length;
      for (let n = 1 + random.int(4); n > 0; n--) broken[random.int(where)] = random.int(256);
      const into = new Uint8Array(bytes.length);
      try {
        unzstd(broken, into);
      } catch (error) {
        failures++;
        expect(error).toBeInstanceOf(DiskError);
        expect((error as DiskError).kind).toBe("corrupt");
      }
      unzstd(packed, into);
      expectBytes(into, bytes);
    }
    expect(failures).toBeGreaterThan(0);
  });

  test.skipIf(!requireTool("qemu-img"))("the clusters of an image that qemu-img compressed", () => {
    const raw = join(folder, "disk.raw");
    const image = join(folder, "disk.qcow2");
    const disk = new Random(7).text(1 << 20);
    writeFileSync(raw, disk);
    runTool("qemu-img", ["convert", "-c", "-O", "qcow2", "-o", "compression_type=zstd", raw, image]);
    const file = new Uint8Array(readFileSync(image));
    const view = new DataView(file.buffer);
    const l2 = Number(view.getBigUint64(Number(view.getBigUint64(40)), false) & 0xff_ffff_ffff_fe00n);
    for (let cluster = 0; cluster < 16; cluster++) {
      const entry = view.getBigUint64(l2 + cluster * 8);
      expect(entry >> 62n).toBe(1n);
      const offset = Number(entry & ((1n << 54n) - 1n));
      const length = (Number((entry >> 54n) & 0xffn) + 1) * 512 - (offset & 511);
      const into = new Uint8Array(65536);
      unzstd(file.subarray(offset, offset + length), into);
      expectBytes(into, disk.subarray(cluster * 65536, (cluster + 1) * 65536), `cluster ${cluster}`);
    }
  });
});
