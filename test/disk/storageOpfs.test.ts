import { afterEach, describe, expect, test, vi } from "vitest";
import { OpfsStorage, type SyncHandle } from "../../disk/storage/opfs.web.ts";
import { expectBytes } from "../support/bytes.ts";
import { seeded } from "../support/random.ts";

// The rest is in test/browser/storage.test.ts, with the real thing; here are the faults that a browser shows rarely.

const failure = (kind: string, words: RegExp): object => expect.objectContaining({ name: "DiskError", kind, message: expect.stringMatching(words) });

/** A handle over an array that moves at most `most(n)` of `n` bytes a call. */
class FakeHandle implements SyncHandle {
  bytes = new Uint8Array(0);
  most = (wanted: number): number => wanted;
  flushes = 0;
  closed = false;

  read(into: Uint8Array, { at }: { at: number }): number {
    const part = this.bytes.subarray(at, at + Math.min(into.length, this.most(into.length)));
    into.set(part);
    return part.length;
  }

  write(from: Uint8Array, { at }: { at: number }): number {
    const count = this.most(from.length);
    if (count < 0) return count;
    if (at + count > this.bytes.length) this.truncate(at + count);
    this.bytes.set(from.subarray(0, count), at);
    return count;
  }

  truncate(size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(this.bytes.subarray(0, size));
    this.bytes = bytes;
  }

  getSize(): number {
    return this.bytes.length;
  }

  flush(): void {
    this.flushes++;
  }

  close(): void {
    this.closed = true;
  }
}

seeded("calls that move only a part are continued", (random) => {
  const handle = new FakeHandle();
  const file = new OpfsStorage(handle, "part.img");
  handle.most = (wanted) => 1 + random.int(wanted);
  const bytes = random.bytes(5000);
  file.write(100, bytes);
  file.zero(200, 1000);
  const got = new Uint8Array(6000).fill(1);
  file.read(0, got);
  const want = new Uint8Array(6000);
  want.set(bytes, 100);
  expectBytes(got, want.fill(0, 200, 1200));
  expect(file.size).toBe(5100);
});

describe("failures without an exception, as in Chromium's incognito mode", () => {
  test.each([-1, 0, NaN])("a write that returns %d is no-space", (count) => {
    const handle = new FakeHandle();
    const file = new OpfsStorage(handle, "x.img");
    file.write(0, new Uint8Array(10));
    handle.most = () => count;
    expect(() => file.write(10, new Uint8Array(10))).toThrow(failure("no-space", /full.*0xa/));
    expect(file.size).toBe(10);
  });

  test("a truncate that changes nothing is no-space", () => {
    const handle = new FakeHandle();
    const file = new OpfsStorage(handle, "x.img");
    handle.truncate = () => undefined;
    expect(() => file.truncate(100)).toThrow(failure("no-space", /full/));
    expect(file.size).toBe(0);
  });

  test("bytes that are gone are an error, not zeros", () => {
    const handle = new FakeHandle();
    const file = new OpfsStorage(handle, "x.img");
    file.write(0, new Uint8Array(100).fill(1));
    handle.bytes = handle.bytes.slice(0, 50);
    expect(() => file.read(0, new Uint8Array(100))).toThrow(failure("io", /lost a part.*0x32/));
  });
});

test.each([["QuotaExceededError", "no-space", /full/], ["InvalidStateError", "io", /InvalidStateError: why/], ["TypeError", "io", /failed/]])("%s while writing is %s", (name, kind, words) => {
  const handle = new FakeHandle();
  const file = new OpfsStorage(handle, "x.img");
  handle.write = () => { throw new DOMException("why", name); };
  expect(() => file.write(0, new Uint8Array(1))).toThrow(failure(kind, words));
});

describe("opening", () => {
  afterEach(() => vi.unstubAllGlobals());
  const stub = (file: object): void => {
    const folder = { getFileHandle: () => Promise.resolve(file) };
    vi.stubGlobal("navigator", { storage: { getDirectory: () => Promise.resolve(folder) } });
  };

  test("outside dedicated workers says where to go", async () => {
    stub({});
    await expect(OpfsStorage.open("x.img")).rejects.toEqual(failure("unsupported", /dedicated workers only/));
  });

  test("that fails half-way gives the lock back", async () => {
    const handle = new FakeHandle();
    handle.bytes = new Uint8Array(5);
    handle.truncate = () => { throw new DOMException("", "QuotaExceededError"); };
    stub({ createSyncAccessHandle: () => Promise.resolve(handle) });
    await expect(OpfsStorage.open("x.img", "replace")).rejects.toEqual(failure("no-space", /full/));
    expect(handle.closed).toBe(true);
  });

  test("flush reaches the file, but not one opened read-only", async () => {
    const handle = new FakeHandle();
    stub({ createSyncAccessHandle: () => Promise.resolve(handle) });
    (await OpfsStorage.open("x.img", "write")).flush();
    (await OpfsStorage.open("x.img", "read")).flush();
    expect(handle.flushes).toBe(1);
  });
});
