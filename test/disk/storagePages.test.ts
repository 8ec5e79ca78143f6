import { expect, test } from "vitest";
import { PagedStorage } from "../../disk/storage/pages.ts";
import { expectSame } from "../support/model.ts";
import { seeded } from "../support/random.ts";

const KIB = 1024, SIZE = 1024 * KIB;

seeded("holds what was written and zeroed, like an array", (random) => {
  const storage = new PagedStorage(4 * SIZE), model = new Uint8Array(SIZE);
  let size = 0;
  for (let round = 0; round < 300; round++) {
    const length = 1 + random.int(200 * KIB), offset = random.int(SIZE - length);
    if (random.chance(0.6)) {
      const bytes = random.bytes(length);
      void storage.write(offset, bytes);
      model.set(bytes, offset);
      size = Math.max(size, offset + length);
    } else if (random.chance(0.7)) {
      void storage.zero(offset, length);
      model.fill(0, offset, Math.max(offset, Math.min(size, offset + length)));
    } else {
      size = random.int(SIZE);
      void storage.truncate(size);
      model.fill(0, size);
    }
    expect(storage.size).toBe(size);
  }
  const now = new Uint8Array(SIZE).fill(0xee);
  void storage.read(0, now);
  expectSame(now, model);
  for (let at = 0; at < size;) {
    const { data, length } = storage.dataAt(at);
    if (!data) expectSame(model.slice(at, at + length), new Uint8Array(length), at);
    at += length;
  }
});

test("takes memory only for what was written, gives it back, and no more than allowed", () => {
  const storage = new PagedStorage(128 * KIB);
  void storage.truncate(2 ** 40);
  expect(storage.used).toBe(0);
  void storage.write(2 ** 39, new Uint8Array(1).fill(1));
  void storage.write(0, new Uint8Array(64 * KIB).fill(2));
  expect(() => storage.write(2 ** 30, new Uint8Array(1))).toThrow(/131072 bytes of memory/);
  void storage.discard(0, 64 * KIB);
  void storage.write(2 ** 30, new Uint8Array(1));
  expect(storage.used).toBe(128 * KIB);
});
