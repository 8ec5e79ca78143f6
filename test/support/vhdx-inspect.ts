import { crc32c } from "../../disk/bytes/crc32c.ts";
import type { MemoryStorage } from "../../disk/storage/memory.ts";

const KIB = 1024, MIB = 1024 * KIB, PAGE = 4096, METADATA_END = 4 * MIB;

/** Puts the checksum of the structure of `length` bytes at `at` right. */
export function sealVhdx(bytes: Uint8Array, at: number, length: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(at + 4, 0);
  view.setUint32(at + 4, crc32c(bytes.subarray(at, at + length)), true);
}

interface Layout { readonly view: DataView; readonly bat: number; readonly metadata: number; readonly blockSize: number; readonly size: number; readonly chunk: number }

/** As our own and QEMU's images are laid out: BAT and metadata are the first two regions, and items stand in order. */
function layoutOf(bytes: Uint8Array): Layout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), bat = view.getUint32(192 * KIB + 32, true), metadata = view.getUint32(192 * KIB + 64, true);
  const blockSize = view.getUint32(metadata + 64 * KIB, true);
  return { view, bat, metadata, blockSize, size: Number(view.getBigUint64(metadata + 64 * KIB + 8, true)), chunk: (2 ** 23 * 512) / blockSize };
}

/** Whether the bytes begin as a VHDX does. */
export const isVhdx = (bytes: Uint8Array): boolean => String.fromCharCode(...bytes.subarray(0, 8)) === "vhdxfile";

/** The header that counts; `undefined`: none is sound. */
function headerOf(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset), sound = [64 * KIB, 128 * KIB].filter((at) => {
    const copy = bytes.slice(at, at + PAGE);
    sealVhdx(copy, 0, PAGE);
    return Buffer.compare(copy, bytes.subarray(at, at + PAGE)) === 0;
  });
  return sound.toSorted((a, b) => Number(view.getBigUint64(b + 8, true) - view.getBigUint64(a + 8, true)))[0];
}

/** What the log makes of the image up to the end of its metadata, for logs of entries that stand alone, as ours are. A string: what is wrong. Written without the driver. */
export function replayedVhdx(bytes: Uint8Array): Uint8Array | string {
  const header = headerOf(bytes), view = new DataView(bytes.buffer, bytes.byteOffset), result = bytes.slice(0, METADATA_END);
  if (header === undefined) return "no sound header";
  const guid = bytes.slice(header + 48, header + 64), length = view.getUint32(header + 68, true), offset = view.getUint32(header + 72, true);
  if (guid.every((byte) => byte === 0)) return result;
  let best = -1, most = 0;
  for (let at = offset; at < offset + length; at += PAGE) {
    if (view.getUint32(at, true) !== 0x65676f6c || Buffer.compare(bytes.subarray(at + 32, at + 48), guid) !== 0) continue;
    const entry = bytes.slice(at, at + view.getUint32(at + 8, true)), sequence = Number(view.getBigUint64(at + 16, true));
    sealVhdx(entry, 0, entry.length);
    if (Buffer.compare(entry, bytes.subarray(at, at + entry.length)) === 0 && sequence > most) [best, most] = [at, sequence];
  }
  if (best < 0) return "the header names a log that has no valid entry";
  for (let i = 0; i < view.getUint32(best + 24, true); i++) {
    const descriptor = best + 64 + i * 32, to = Number(view.getBigUint64(descriptor + 16, true)), page = bytes.slice(best + PAGE * (i + 1), best + PAGE * (i + 2));
    page.set(bytes.subarray(descriptor + 8, descriptor + 16));
    page.set(bytes.subarray(descriptor + 4, descriptor + 8), PAGE - 4);
    result.set(page, to);
  }
  return result;
}

/** The BAT as it is after a replay. */
export function batAfterReplay(bytes: Uint8Array): Uint8Array {
  const after = replayedVhdx(bytes);
  if (typeof after === "string") throw new Error(after);
  const { bat, blockSize, size, chunk } = layoutOf(after), blocks = Math.ceil(size / blockSize);
  return after.slice(bat, bat + Math.ceil((blocks + Math.floor((blocks - 1) / chunk)) / 512) * PAGE);
}

/** What must never be: no header, a log without entries, a block twice, in the first MiB or behind the end of the file. */
export function brokenVhdx(file: Uint8Array): string | undefined {
  const bytes = replayedVhdx(file), seen = new Set<number>();
  if (typeof bytes === "string") return bytes;
  const { view, bat, blockSize, size, chunk } = layoutOf(bytes);
  for (let i = 0; i < Math.ceil(size / blockSize); i++) {
    const entry = view.getBigUint64(bat + (i + Math.floor(i / chunk)) * 8, true), at = Number(entry >> 20n) * MIB;
    if ((entry & 7n) !== 6n) continue;
    if (seen.has(at)) return `two blocks at ${at}`;
    if (at < 4 * MIB || at + blockSize > file.length) return `block ${i} at ${at}`;
    seen.add(at);
  }
  return undefined;
}

/** Makes an image, whose blocks say that they are not present, a differencing one above the parent that these pairs name. */
export function differencingVhdx(file: MemoryStorage, pairs: Readonly<Record<string, string>>): void {
  const { view, metadata } = layoutOf(file.bytes), locator = Buffer.alloc(4 * KIB), entries = Object.entries(pairs);
  Buffer.from("b7ef4ab09ed1814ab78925b8e9445913", "hex").copy(locator);
  locator.writeUInt16LE(entries.length, 18);
  let at = 1 * KIB;
  const put = (text: string): [number, number] => {
    const length = locator.write(text, at, "utf16le");
    at += length;
    return [at - length, length];
  };
  for (const [i, [key, value]] of entries.entries()) {
    const [keyAt, keyLength] = put(key), [valueAt, valueLength] = put(value), entry = 20 + i * 12;
    locator.writeUInt32LE(keyAt, entry);
    locator.writeUInt32LE(valueAt, entry + 4);
    locator.writeUInt16LE(keyLength, entry + 8);
    locator.writeUInt16LE(valueLength, entry + 10);
  }
  view.setUint32(metadata + 64 * KIB + 4, 2, true);
  view.setUint16(metadata + 10, 6, true);
  const item = metadata + 32 + 5 * 32;
  file.bytes.set(Buffer.from("2d5fd3a80bb34d45abf7d3d84834ab0c", "hex"), item);
  view.setUint32(item + 16, 128 * KIB, true);
  view.setUint32(item + 20, locator.length, true);
  view.setUint32(item + 24, 4, true);
  file.bytes.set(locator, metadata + 128 * KIB);
}

/** Gives a block of a differencing image its data, and with `bitmap` only those sectors. Answers where the data stand. */
export function putBlock(file: MemoryStorage, block: number, data: Uint8Array, bitmap?: Uint8Array): number {
  const end = Math.ceil(file.size / MIB) * MIB, { blockSize, bat, chunk } = layoutOf(file.bytes), slot = Math.floor(block / chunk) * (chunk + 1) + chunk;
  let bits = Number(layoutOf(file.bytes).view.getBigUint64(bat + slot * 8, true) >> 20n) * MIB;
  void file.truncate(end + blockSize + (bitmap !== undefined && bits === 0 ? MIB : 0));
  const { view } = layoutOf(file.bytes);
  view.setBigUint64(bat + (block + Math.floor(block / chunk)) * 8, BigInt(end) | (bitmap === undefined ? 6n : 7n), true);
  file.bytes.set(data, end);
  if (bitmap === undefined) return end;
  if (bits === 0) bits = end + blockSize;
  view.setBigUint64(bat + slot * 8, BigInt(bits) | 6n, true);
  file.bytes.set(bitmap, bits + (block % chunk) * (blockSize / 4096));
  return end;
}
