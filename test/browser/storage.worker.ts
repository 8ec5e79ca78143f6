import { inflate } from "../../disk/codecs/inflate.ts";
import { unzstd, zstdReady } from "../../disk/codecs/zstd.ts";
import { BlobStorage } from "../../disk/storage/blob.web.ts";
import { HttpStorage } from "../../disk/storage/http.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { type OpfsMode, OpfsStorage } from "../../disk/storage/opfs.web.ts";
import type { Storage } from "../../disk/storage.ts";
import { Random } from "../support/generator.ts";
import { serve } from "../support/workerHost.ts";

const opened = new Map<string, Storage>();
const get = (name: string): Storage => {
  const storage = opened.get(name);
  if (!storage) throw new Error(`${name} is not open`);
  return storage;
};
const same = (a: Uint8Array, b: Uint8Array): boolean => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** Random changes to a file and to memory; what differs, or "same" and the size. */
async function compare(path: string, seed: number): Promise<string> {
  const random = new Random(seed);
  const file = await OpfsStorage.open(path, "replace");
  const model = new MemoryStorage();
  for (let i = 0; i < 300; i++) {
    const offset = random.int(200_000);
    const length = random.int(random.chance(0.2) ? 60_000 : 2000);
    const bytes = random.bytes(length);
    const size = random.int(250_000);
    const change = random.int(8);
    for (const storage of [file, model]) {
      if (change < 4) void storage.write(offset, bytes);
      else if (change < 6) void storage.zero(offset, length);
      else if (change < 7) void storage.truncate(size);
      else void storage.flush();
    }
    const [got, want] = [new Uint8Array(5000).fill(1), new Uint8Array(5000).fill(2)];
    const at = random.int(250_000);
    file.read(at, got);
    void model.read(at, want);
    if (file.size !== model.size || !same(got, want)) return `differs after change ${i}, at ${at}`;
  }
  file.flush();
  file.close();
  const again = await OpfsStorage.open(path);
  const bytes = new Uint8Array(again.size);
  again.read(0, bytes);
  again.close();
  return same(bytes, model.bytes) ? "same" : "differs when opened again";
}

async function readBytes(name: string, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length).fill(0xee);
  await get(name).read(offset, into);
  return into;
}

serve({
  compare,
  openOpfs: async (path: string, mode: OpfsMode) => {
    opened.set(path, await OpfsStorage.open(path, mode));
    return get(path).size;
  },
  openBlob: (name: string, file: File) => {
    opened.set(name, new BlobStorage(file, undefined, { chunkSize: 65536 }));
    return [get(name).name, get(name).size];
  },
  openHttp: async (name: string, url: string) => {
    opened.set(name, await HttpStorage.open(url, { chunkSize: 65536, backoff: 5 }));
    return get(name).size;
  },
  read: readBytes,
  /** Whether a read is answered without a promise. */
  isSynchronous: (name: string, offset: number, length: number) => get(name).read(offset, new Uint8Array(length)) === undefined,
  write: (name: string, offset: number, bytes: Uint8Array) => get(name).write(offset, bytes),
  fill: (name: string, offset: number, length: number) => get(name).write(offset, new Uint8Array(length).fill(7)),
  truncate: (name: string, size: number) => get(name).truncate(size),
  size: (name: string) => get(name).size,
  flush: (name: string) => get(name).flush(),
  close: (name: string) => get(name).close(),
  remove: async (name: string) => (await navigator.storage.getDirectory()).removeEntry(name),
  inflate: (packed: Uint8Array, length: number) => {
    const into = new Uint8Array(length);
    inflate(packed, into);
    return into;
  },
  unzstd: async (packed: Uint8Array, length: number) => {
    await zstdReady();
    const into = new Uint8Array(length);
    unzstd(packed, into);
    return into;
  },
});
