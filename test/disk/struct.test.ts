import { describe, expect, test } from "vitest";
import { bytes, flags64, getU64, setU64, Struct, u16, u32, u64, u8 } from "../../disk/bytes/struct.ts";
import { decodeText } from "../../disk/bytes/text.ts";
import { refcountWidth } from "../../disk/formats/qcow2/refcount-bits.ts";
import { Random } from "../support/generator.ts";

const FIELDS = { a: u8, b: u16, c: u32, d: u64, e: flags64, f: bytes(3) };
const VALUES = { a: 1, b: 0x0203, c: 0x04050607, d: 0x08090a0b0c0d0e, e: 0xf0f1f2f3f4f5f6f7n, f: Uint8Array.of(7, 8, 9) };

describe("Struct", () => {
  test("has its fields one after the other, and writes what it reads, in both byte orders", () => {
    const big = new Struct(FIELDS), little = new Struct(FIELDS, "little");
    expect([big.size, big.offsetOf("d"), big.offsetOf("f")]).toEqual([26, 7, 23]);
    const hex = (one: typeof big): string[] => [0, 7, 15, 23].map((at, i) => Buffer.from(one.format(VALUES)).subarray(at, [7, 15, 23, 26][i]).toString("hex"));
    expect(hex(big)).toEqual(["01020304050607", "0008090a0b0c0d0e", "f0f1f2f3f4f5f6f7", "070809"]);
    expect(hex(little)).toEqual(["01030207060504", "0e0d0c0b0a090800", "f7f6f5f4f3f2f1f0", "070809"]);
    for (const one of [big, little]) {
      const inside = new Uint8Array(100);
      inside.set(one.format(VALUES), 37);
      expect(one.parse(inside.subarray(30), 7)).toEqual(VALUES);
    }
  });

  test("bytes that it reads are a copy", () => {
    const struct = new Struct({ f: bytes(2) }), from = Uint8Array.of(1, 2), { f } = struct.parse(from);
    from[0] = 9;
    expect([...f]).toEqual([1, 2]);
  });

  test("refuses a 64-bit value above 2^53 - 1 as corrupt, and takes the largest below", () => {
    const view = new DataView(new ArrayBuffer(8));
    setU64(view, 0, Number.MAX_SAFE_INTEGER);
    expect(getU64(view, 0)).toBe(Number.MAX_SAFE_INTEGER);
    view.setBigUint64(0, 2n ** 53n);
    expect(() => getU64(view, 0)).toThrow(expect.objectContaining({ kind: "corrupt" }));
  });
});

test("a name ends at its first NUL, and is UTF-8 or corrupt", () => {
  expect(decodeText(Uint8Array.of(0xc3, 0xa4, 0x62, 0, 0x63), "image")).toBe("äb");
  expect(() => decodeText(Uint8Array.of(0x61, 0xff), "image")).toThrow(expect.objectContaining({ kind: "corrupt" }));
});

describe.each([0, 1, 2, 3, 4, 5, 6])("refcounts of 2^%i bits", (order) => {
  test("stand where the specification says, and leave their neighbours alone", () => {
    const width = refcountWidth(order), bits = 2 ** order, view = new DataView(new ArrayBuffer(64)), count = (64 * 8) / bits;
    const model = Array.from({ length: count }, () => 0), random = new Random(order);
    for (let i = 0; i < 300; i++) {
      const index = random.int(count), value = random.chance(0.2) ? width.max : random.int(Math.min(width.max, 2 ** 40) + 1), before = new Uint8Array(view.buffer.slice(0));
      width.set(view, index, value);
      model[index] = value;
      const after = new Uint8Array(view.buffer), changed = [...after.keys()].filter((at) => after[at] !== before[at]), { from, to } = width.bytes(index, index);
      expect(changed.every((at) => at >= from && at < to)).toBe(true);
    }
    expect(model.map((_, index) => width.get(view, index))).toEqual(model);
    const whole = BigInt(`0x${Buffer.from(view.buffer).subarray(0, 8).toString("hex")}`), first = bits < 8 ? BigInt(view.getUint8(0)) & ((1n << BigInt(bits)) - 1n) : whole >> BigInt(64 - bits);
    expect(first).toBe(BigInt(model[0] ?? -1));
  });
});
