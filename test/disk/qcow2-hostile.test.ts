import { expect, test } from "vitest";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";

const CLUSTER = 65536, L2_AT = 4 * CLUSTER;

/** An image with one guest cluster written: L2 table and data are its last two clusters. */
async function image(): Promise<MemoryStorage> {
  const file = new MemoryStorage(undefined, "hostile.qcow2");
  await run(createQcow2(file, { size: 2 ** 20 }));
  const disk = await open(file);
  await disk.write(0, new Uint8Array(512).fill(1));
  await disk.close();
  return file;
}

const view = (file: MemoryStorage): DataView => new DataView(file.bytes.buffer, file.bytes.byteOffset);

test("an entry that would let the guest write over metadata in place is refused", async () => {
  const file = await image();
  view(file).setUint32(L2_AT + 8, 0x8000_0000);
  view(file).setUint32(L2_AT + 12, CLUSTER);   // guest cluster 1 is the refcount table
  const disk = await open(file);
  expect(() => disk.write(CLUSTER, new Uint8Array(512))).toThrow(/holds metadata/);
});

test("an entry that shares metadata without owning it is copied on write, but its metadata is never freed", async () => {
  const file = await image(), table = file.bytes.slice(CLUSTER, 2 * CLUSTER);
  view(file).setUint32(L2_AT + 12, CLUSTER);
  const disk = await open(file);
  await disk.write(CLUSTER, new Uint8Array(512));
  expect(() => disk.flush()).toThrow(/holds metadata, but an entry for data points at it/);
  expect(() => disk.write(2 * CLUSTER, new Uint8Array(512))).toThrow(/holds metadata/);
  await disk.close();
  expect(Buffer.compare(file.bytes.subarray(CLUSTER, 2 * CLUSTER), table)).toBe(0);
  const again = await open(file, { readOnly: true });
  await again.close();
  expect(() => open(file)).toThrow(/marked corrupt/);
});

test("a file cut off before its refcount block is refused for writing: all its clusters would seem free", async () => {
  const whole = await image();
  const file = new MemoryStorage(whole.bytes.slice(), "cut.qcow2");
  view(file).setUint32(CLUSTER + 4, 100 * CLUSTER);   // refcount table entry 0
  const disk = await open(file);
  expect(() => disk.write(4 * CLUSTER, new Uint8Array(512))).toThrow(/truncated: it ends before a refcount block/);
});
