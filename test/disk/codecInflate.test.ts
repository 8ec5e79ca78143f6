import { constants, deflateRawSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { inflateNode } from "../../disk/codecs/inflate.node.ts";
import { inflate, inflatePako, setInflate } from "../../disk/codecs/inflate.ts";
import { DiskError } from "../../disk/errors.ts";
import { expectBytes } from "../support/bytes.ts";
import { type Random, seeded } from "../support/random.ts";

const corrupt = (words: RegExp): object => expect.objectContaining({ name: "DiskError", kind: "corrupt", message: expect.stringMatching(words) });

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** A cluster of some size and kind, and a stream of it as some writer may have made it. */
function sample(random: Random): { bytes: Uint8Array; packed: Uint8Array } {
  const size = random.pick([512, 4096, 65536, 65536, 1 << 20]);
  const bytes = random.pick([() => random.text(size), () => random.bytes(size), () => new Uint8Array(size)])();
  const packed = deflateRawSync(bytes, {
    level: random.int(10), windowBits: random.pick([9, 12, 15]), memLevel: 1 + random.int(9),
    strategy: random.pick([constants.Z_DEFAULT_STRATEGY, constants.Z_FIXED, constants.Z_HUFFMAN_ONLY, constants.Z_RLE]),
  });
  return { bytes, packed };
}

describe.each([["pako", inflatePako], ["node:zlib", inflateNode]])("inflate by %s", (_, decode) => {
  seeded("unpacks what zlib packs, whatever follows it", (random) => {
    for (let i = 0; i < 60; i++) {
      const { bytes, packed } = sample(random);
      const around = new Uint8Array(bytes.length + 32).fill(0xaa);
      decode(joined(packed, random.bytes(random.int(600))), around.subarray(16, -16));
      expectBytes(around.subarray(16, -16), bytes);
      expect([...around.subarray(0, 16), ...around.subarray(-16)].every((byte) => byte === 0xaa)).toBe(true);
    }
  });

  seeded("data that ends early is corrupt, wherever it ends", (random) => {
    const { bytes, packed } = sample(random);
    const into = new Uint8Array(bytes.length);
    for (let i = 0; i < 60; i++) {
      const end = random.int(packed.length - 8); // the last bytes may hold nothing but the end mark
      expect(() => decode(packed.subarray(0, end), into)).toThrow(corrupt(/ends \d+ bytes early/));
    }
    expect(() => decode(new Uint8Array(0), into)).toThrow(corrupt(/early/));
    decode(packed, into);
    expectBytes(into, bytes);
  });

  test("a complete stream of too few bytes is corrupt", () => {
    expect(() => decode(deflateRawSync(new Uint8Array(65535)), new Uint8Array(65536))).toThrow(corrupt(/ends 1 bytes early/));
  });

  test("a stream that would go on is cut where the cluster is full, as QEMU does; a bomb costs no more", () => {
    const text = new Uint8Array(300_000).map((_, i) => i % 251);
    const into = new Uint8Array(65536);
    decode(deflateRawSync(text), into);
    expectBytes(into, text.subarray(0, 65536));
    const bomb = deflateRawSync(new Uint8Array(64 << 20));
    const before = process.memoryUsage().arrayBuffers;
    decode(bomb, into.fill(1));
    expectBytes(into, new Uint8Array(65536));
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 << 20);
  });

  test("invalid data is named so", () => {
    expect(() => decode(new Uint8Array(600).fill(0xff), new Uint8Array(512))).toThrow(corrupt(/is invalid \(.*block type/));
  });

  seeded("damaged data ends in DiskError or in some bytes, and never spoils the next call", (random) => {
    for (let i = 0; i < 300; i++) {
      const bytes = random.text(4096);
      const packed = new Uint8Array(deflateRawSync(bytes));
      const broken = packed.slice();
      for (let n = 1 + random.int(4); n > 0; n--) broken[random.int(broken.length)] = random.int(256);
      const into = new Uint8Array(4096);
      try {
        decode(broken, into);
      } catch (error) {
        expect(error).toBeInstanceOf(DiskError);
        expect((error as DiskError).kind).toBe("corrupt");
      }
      decode(packed, into);
      expectBytes(into, bytes);
    }
  });
});

test("both decoders answer alike on damaged data", () => {
  const packed = new Uint8Array(deflateRawSync(new Uint8Array(8192).map((_, i) => (i * i) >> 5)));
  const outcome = (decode: typeof inflate, from: Uint8Array): string => {
    const into = new Uint8Array(8192);
    try {
      decode(from, into);
      return Buffer.from(into).toString("base64");
    } catch (error) {
      return String(error);
    }
  };
  const outcomes = new Set<boolean>();
  for (let at = 0; at < packed.length; at++) {
    const broken = packed.slice();
    broken[at] = (broken[at] ?? 0) ^ 0x10;
    expect(outcome(inflateNode, broken)).toBe(outcome(inflatePako, broken));
    outcomes.add(outcome(inflatePako, broken).startsWith("DiskError"));
  }
  expect(outcomes.has(true)).toBe(true);
});

test("the host chooses the decoder", () => {
  const asked: number[] = [];
  setInflate((packed) => void asked.push(packed.length));
  inflate(new Uint8Array(3), new Uint8Array(1));
  setInflate(inflatePako);
  expect(asked).toEqual([3]);
  expect(() => inflate(new Uint8Array(0), new Uint8Array(1))).toThrow(DiskError);
});
