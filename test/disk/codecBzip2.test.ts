import { spawnSync } from "node:child_process";
import { describe, expect, test } from "vitest";
import { bunzip2 } from "../../disk/codecs/bzip2.ts";
import { DiskError } from "../../disk/errors.ts";
import { expectBytes } from "../support/bytes.ts";
import { type Random, seeded } from "../support/random.ts";
import { findTool, requireTool } from "../support/tools.ts";

function bzip2(plain: Uint8Array, ...options: string[]): Uint8Array {
  const { stdout, status } = spawnSync(findTool("bzip2") ?? "bzip2", ["-c", ...options], { input: plain, maxBuffer: 64 << 20 });
  expect(status).toBe(0);
  return new Uint8Array(stdout);
}

function unpacked(packed: Uint8Array, length: number): Uint8Array {
  const into = new Uint8Array(length).fill(0xee);
  bunzip2(packed, into);
  return into;
}

/** Of every kind that the format treats differently: runs, few and many symbols, several blocks. */
function samples(random: Random): Uint8Array[] {
  const runs = new Uint8Array(50_000);
  for (let at = 0; at < runs.length;) {
    const length = 1 + random.int(random.pick([3, 8, 600]));
    runs.fill(random.int(3), at, at + length);
    at += length;
  }
  return [
    new Uint8Array(1), new Uint8Array(512), new Uint8Array(1_200_000), new Uint8Array(259).fill(7), runs, random.bytes(70_000), random.text(250_000), Uint8Array.from({ length: 256 }, (_, i) => i),
    Uint8Array.from({ length: 100_000 }, (_, i) => i % 2), random.text(1_000_000),
  ];
}

describe.skipIf(!requireTool("bzip2"))("what bzip2 packed", () => {
  seeded("is unpacked, with every block size", (random) => {
    for (const [i, plain] of samples(random).entries()) expectBytes(unpacked(bzip2(plain, `-${random.pick([1, 1, 5, 9])}`), plain.length), plain, `sample ${i}`);
  });

  seeded("may be several streams, and have something behind", (random) => {
    const one = random.text(3000), two = random.bytes(500), packed = Buffer.concat([bzip2(one), bzip2(new Uint8Array(0)), bzip2(two), random.bytes(20)]);
    expectBytes(unpacked(packed, 3500), Buffer.concat([one, two]));
    expect(() => unpacked(packed, 3501)).toThrow(/is not bzip2|ends early/);
    expect(() => unpacked(packed, 2999)).toThrow(/longer than it should/);
    expect(() => unpacked(packed, 3499)).toThrow(/longer than it should/);
  });

  seeded("and is damaged or cut off ends in a DiskError, or in the very bytes", (random) => {
    const plain = random.text(20_000), packed = bzip2(plain);
    for (let round = 0; round < 300; round++) {
      let hurt = packed.slice();
      if (random.chance(0.3)) hurt = hurt.subarray(0, random.int(hurt.length));
      else for (let i = 0; i < 1 + random.int(3); i++) hurt[random.int(hurt.length)] = random.int(256);
      try {
        expectBytes(unpacked(hurt, plain.length), plain);
      } catch (error) {
        if (!(error instanceof DiskError && error.kind === "corrupt")) throw error;
      }
    }
  });
});

test("what is no bzip2 is said so", () => {
  expect(() => unpacked(new Uint8Array(0), 1)).toThrow(/ends early/);
  expect(() => unpacked(new Uint8Array(50), 1)).toThrow(/is not bzip2/);
  expect(() => unpacked(Uint8Array.from("BZh0xxxxxxxxxxxxxxxxx", (c) => c.charCodeAt(0)), 1)).toThrow(/block size/);
  expect(() => unpacked(Uint8Array.from("BZh9xxxxxxxxxxxxxxxxx", (c) => c.charCodeAt(0)), 1)).toThrow(/no block/);
  unpacked(new Uint8Array(0), 0);
});
