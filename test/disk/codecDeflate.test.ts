import { inflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { deflateNode } from "../../disk/codecs/deflate.node.ts";
import { deflate, deflatePako, setDeflate } from "../../disk/codecs/deflate.ts";
import { inflatePako } from "../../disk/codecs/inflate.ts";
import { unzstd, zstdReady } from "../../disk/codecs/zstd.ts";
import { packZstd } from "../../disk/codecs/zstdPack.ts";
import { expectBytes } from "../support/bytes.ts";
import { type Random, seeded } from "../support/random.ts";

function anyBlock(random: Random): Uint8Array {
  const size = random.pick([512, 1024, 4096, 65536, 65536, 1 << 20]);
  return random.pick([() => random.text(size), () => random.bytes(size), () => new Uint8Array(size)])();
}

const everyOne = (packed: readonly (Uint8Array | Promise<Uint8Array>)[]): Promise<Uint8Array[]> => Promise.all(packed.map(async (one) => one));

describe.each([["pako", deflatePako], ["node:zlib", deflateNode]] as const)("deflate by %s", (_, encode) => {
  seeded("what it packs is unpacked again, many at a time, incompressible data too", async (random) => {
    const blocks = Array.from({ length: 40 }, () => anyBlock(random));
    const packed = await everyOne(blocks.map((block) => encode(block, "raw"))), zlib = await everyOne(blocks.map((block) => encode(block, "zlib")));
    for (const [i, block] of blocks.entries()) {
      const into = new Uint8Array(block.length);
      inflatePako(packed[i] ?? new Uint8Array(0), into);
      expectBytes(into, block);
      expectBytes(new Uint8Array(inflateSync(zlib[i] ?? "")), block);
    }
  });

  seeded("a stream needs no window over 4 KiB", async (random) => {
    const far = random.bytes(6000), packed = await encode(new Uint8Array([...far, ...far]), "raw");
    // The second half repeats the first at a distance that 12 bits do not reach.
    expect(packed.length).toBeGreaterThan(12_000);
  });
});

seeded("zstd: what it packs is unpacked again", async (random) => {
  await zstdReady();
  const blocks = Array.from({ length: 40 }, () => anyBlock(random));
  for (const packed of [await everyOne(blocks.map((block) => packZstd(block))), blocks.map((block) => packZstd(block))]) {
    for (const [i, block] of blocks.entries()) {
      const bytes = packed[i], into = new Uint8Array(block.length);
      if (!(bytes instanceof Uint8Array)) throw new Error("once loaded it answers at once");
      unzstd(bytes, into);
      expectBytes(into, block);
    }
  }
});

test("the host chooses the encoder", () => {
  const asked: number[] = [];
  setDeflate((block) => new Uint8Array(asked.push(block.length)));
  void deflate(new Uint8Array(3), "raw");
  setDeflate(deflatePako);
  expect(asked).toEqual([3]);
  expect(deflate(new Uint8Array(4096), "raw")).toBeInstanceOf(Uint8Array);
});
