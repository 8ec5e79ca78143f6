import { describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { BlobStorage } from "../../disk/storage/blob.web.ts";
import { ChunkCache } from "../../disk/storage/chunkCache.ts";
import { type ChunkOptions, ChunkedStorage, type ChunkSource } from "../../disk/storage/chunked.ts";
import { expectBytes } from "../support/bytes.ts";
import { Random, seeded } from "../support/random.ts";

const bytes = new Random(1).bytes(100_000);

/** A source whose answers wait until the test lets them go. */
class FakeSource implements ChunkSource {
  readonly name = "fake";
  readonly size = bytes.length;
  readonly asked: string[] = [];
  readonly held: (() => void)[] = [];
  hold = false;
  failure: DiskError | undefined;
  active = 0;
  mostActive = 0;
  closed = false;

  async fetch(offset: number, length: number): Promise<Uint8Array> {
    this.asked.push(`${offset / 1000}+${length / 1000}`);
    this.mostActive = Math.max(this.mostActive, ++this.active);
    if (this.hold) await new Promise<void>((resolve) => { this.held.push(resolve); });
    else await Promise.resolve();
    this.active--;
    if (this.failure) throw this.failure;
    return bytes.slice(offset, offset + length);
  }

  close(): void {
    this.closed = true;
  }
}

function chunked(options: ChunkOptions = {}): { source: FakeSource; storage: ChunkedStorage } {
  const source = new FakeSource();
  return { source, storage: new ChunkedStorage(source, { chunkSize: 1000, requestBytes: 4000, readaheadBytes: 0, ...options }) };
}

async function readBytes(storage: ChunkedStorage, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length).fill(0xee);
  await storage.read(offset, into);
  return into;
}

const padded = (offset: number, length: number): Uint8Array => {
  const want = new Uint8Array(length);
  want.set(bytes.subarray(offset, offset + length));
  return want;
};

describe("chunked storage", () => {
  seeded("any reads, overlapping and concurrent, with any cache, give the source's bytes", async (random) => {
    for (let round = 0; round < 30; round++) {
      const { source, storage } = chunked({
        chunkSize: random.pick([512, 1000, 4096]), cacheBytes: random.pick([1, 3000, 20_000, 1 << 20]),
        readaheadBytes: random.pick([0, 4000]), requestBytes: random.pick([1000, 8000]), parallel: 1 + random.int(4),
      });
      source.hold = random.chance(0.5);
      let at = 0;
      const reads = Array.from({ length: 40 }, () => {
        const length = 1 + random.int(random.chance(0.2) ? 20_000 : 900);
        at = random.chance(0.5) ? at + length : random.int(bytes.length + 2000);
        return [at, length] as const;
      });
      const results = Promise.all(reads.map(async ([offset, length]) => {
        expectBytes(await readBytes(storage, offset, length), padded(offset, length), `${length} at ${offset}`);
        return true;
      }));
      const state = { finished: false };
      void results.finally(() => { state.finished = true; });
      while (!state.finished) {
        source.held.splice(random.int(source.held.length || 1), 1)[0]?.();
        await Promise.resolve();
      }
      expect(await results).toHaveLength(40);
      expect(source.active).toBe(0);
    }
  });

  test("what is resident is answered synchronously, within a chunk and over several", async () => {
    const { source, storage } = chunked();
    await readBytes(storage, 2000, 3000);
    const into = new Uint8Array(1500);
    expect(storage.read(3200, into)).toBeUndefined();
    expectBytes(into, padded(3200, 1500));
    expect(storage.read(2999, into.subarray(0, 1))).toBeUndefined();
    expect(source.asked).toEqual(["2+3"]);
    expect(storage.traffic).toEqual({ requests: 1, bytes: 3000 });
  });

  test("neighbouring missing chunks are one request, up to the limit, around what is there", async () => {
    const { source, storage } = chunked();
    await readBytes(storage, 6500, 1);
    expectBytes(await readBytes(storage, 0, 12_000), padded(0, 12_000));
    expect(source.asked).toEqual(["6+1", "0+4", "4+2", "7+4", "11+1"]);
  });

  test("concurrent reads of a chunk share its request", async () => {
    const { source, storage } = chunked();
    const reads = [readBytes(storage, 100, 10), readBytes(storage, 500, 1000), readBytes(storage, 1500, 10)];
    expect(await Promise.all(reads)).toEqual([padded(100, 10), padded(500, 1000), padded(1500, 10)]);
    expect(source.asked).toEqual(["0+1", "1+1"]);
  });

  test("no more than so many requests at once", async () => {
    const { source, storage } = chunked({ parallel: 3, requestBytes: 1000 });
    await readBytes(storage, 0, 50_000);
    expect(source.mostActive).toBe(3);
    expect(source.asked).toHaveLength(50);
  });

  test("a failure reaches every reader of the chunk, is not remembered, and resident chunks stay readable", async () => {
    const { source, storage } = chunked();
    await readBytes(storage, 0, 1);
    source.failure = new DiskError("io", "broken");
    const results = await Promise.allSettled([readBytes(storage, 1000, 10), readBytes(storage, 900, 500)]);
    expect(results.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(storage.read(10, new Uint8Array(4))).toBeUndefined();
    source.failure = undefined;
    expectBytes(await readBytes(storage, 900, 500), padded(900, 500));
  });

  test("a source that gives too few bytes is an error", async () => {
    const source = new FakeSource();
    source.fetch = (offset) => Promise.resolve(bytes.slice(offset, offset + 10));
    await expect(new ChunkedStorage(source, { chunkSize: 1000 }).read(0, new Uint8Array(4))).rejects.toThrow(/10 bytes came instead of 1000/);
  });

  test("the cache is bounded: what was used longest ago is fetched again", async () => {
    const { source, storage } = chunked({ cacheBytes: 3000 });
    for (const chunk of [0, 1, 2, 0, 3]) await readBytes(storage, chunk * 1000, 1);
    source.asked.length = 0;
    for (const chunk of [0, 2, 3, 1]) await readBytes(storage, chunk * 1000, 1);
    expect(source.asked).toEqual(["1+1"]);
  });

  test("a sequential reader is run ahead of, doubling to the limit; a random one is not", async () => {
    const { source, storage } = chunked({ readaheadBytes: 4000 });
    for (const chunk of [50, 20, 70, 10]) await readBytes(storage, chunk * 1000, 1);
    expect(source.asked).toEqual(["50+1", "20+1", "70+1", "10+1"]);
    source.asked.length = 0;
    let waits = 0;
    for (let chunk = 11; chunk < 31; chunk++) {
      const pending = storage.read(chunk * 1000, new Uint8Array(1000));
      if (pending) waits++;
      await pending;
      await new Promise((resolve) => { setTimeout(resolve, 0); });
    }
    expect(source.asked.slice(0, 5)).toEqual(["11+1", "12+1", "13+2", "15+4", "19+1"]);
    expect(waits).toBe(1);
  });

  test("readahead leaves out what is there, and goes no further than the end", async () => {
    const { source, storage } = chunked({ readaheadBytes: 4000 });
    for (const chunk of [98, 93]) await readBytes(storage, chunk * 1000, 1);
    source.asked.length = 0;
    for (let chunk = 91; chunk < 100; chunk++) await readBytes(storage, chunk * 1000, 1000);
    expect(source.asked).toEqual(["91+1", "92+1", "94+2", "96+2", "99+1"]);
  });

  test("a chunk of a longer answer owns its bytes, so that dropping the others frees them", async () => {
    const { source, storage } = chunked();
    const answers: Uint8Array[] = [];
    const fetch = source.fetch.bind(source);
    source.fetch = async (offset, length) => {
      const answer = await fetch(offset, length);
      answers.push(answer);
      return answer;
    };
    await readBytes(storage, 0, 4000);
    for (const answer of answers) answer.fill(0);
    expectBytes(await readBytes(storage, 0, 4000), padded(0, 4000));
    expect(answers).toHaveLength(1);
  });

  test("close fails what is under way and what comes after, and ends the source", async () => {
    const { source, storage } = chunked({ parallel: 1 });
    source.hold = true;
    const under = [readBytes(storage, 0, 10), readBytes(storage, 5000, 10)];
    storage.close();
    for (const release of source.held) release();
    const [first, second] = await Promise.allSettled(under);
    expect(first?.status).toBe("fulfilled"); // its bytes came: they are true
    expect(second).toMatchObject({ status: "rejected", reason: { kind: "io" } });
    expect(source.closed).toBe(true);
    expect(() => storage.read(0, new Uint8Array(1))).toThrow(/closed/);
  });

  test("it cannot be changed", () => {
    const { storage } = chunked();
    for (const call of [() => storage.write(0), () => storage.zero(0), () => storage.discard(0), () => storage.truncate(0)]) {
      expect(call).toThrow(expect.objectContaining({ kind: "read-only" }));
    }
  });

  test.each([0, -1, 1.5, NaN])("a chunk size of %d is refused", (chunkSize) => {
    expect(() => chunked({ chunkSize })).toThrow(expect.objectContaining({ kind: "invalid-argument" }));
  });
});

test("the cache counts the bytes it holds, replaced chunks once", () => {
  const cache = new ChunkCache(100);
  for (let i = 0; i < 50; i++) {
    cache.put(i % 7, new Uint8Array(10 + (i % 30)));
    expect(cache.bytes).toBeLessThanOrEqual(100);
  }
  cache.put(99, new Uint8Array(500));
  expect([cache.bytes, cache.has(99), cache.has(0)]).toEqual([500, true, false]);
  cache.clear();
  expect([cache.bytes, cache.get(99)]).toEqual([0, undefined]);
});

describe("blob", () => {
  test("reads a Blob in whole chunks, then from memory", async () => {
    const storage = new BlobStorage(new Blob([bytes]), "picked.img", { chunkSize: 4096 });
    expect([storage.name, storage.size, storage.readOnly]).toEqual(["picked.img", bytes.length, true]);
    expectBytes(await readBytes(storage, 99_000, 2000), padded(99_000, 2000));
    expect(storage.read(98_400, new Uint8Array(100))).toBeUndefined();
  });

  test("a file that changed since it was picked says so", async () => {
    const blob = new Blob([bytes]);
    blob.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("gone", "NotReadableError")) }) as unknown as Blob;
    await expect(new BlobStorage(blob, "x.img").read(0, new Uint8Array(1))).rejects.toThrow(/^x.img: the file was changed, moved or removed/);
  });
});
