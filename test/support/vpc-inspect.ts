import { MemoryStorage } from "../../disk/storage/memory.ts";

const SECTOR = 512;

interface Vhd { readonly view: DataView; readonly size: number; readonly bat: number; readonly entries: number; readonly blockSize: number; readonly bitmap: number }

/** A dynamic VHD whose size is the footer's, as its copy at the beginning tells. */
function parse(bytes: Uint8Array): Vhd {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), header = Number(view.getBigUint64(16)), blockSize = view.getUint32(header + 32);
  return { view, size: Number(view.getBigUint64(48)), bat: Number(view.getBigUint64(header + 16)), entries: view.getUint32(header + 28), blockSize, bitmap: Math.ceil(blockSize / 4096 / SECTOR) * SECTOR };
}

/** What must never be: a block twice, over another, behind the end; a bitmap that the block's data do not agree with. Written without the driver. */
export function brokenVpc(bytes: Uint8Array): string | undefined {
  const { view, bat, entries, blockSize, bitmap } = parse(bytes), blocks: number[] = [];
  for (let i = 0; i < entries; i++) {
    const sector = view.getUint32(bat + i * 4);
    if (sector === 0xffff_ffff) continue;
    if (sector * SECTOR < bat + entries * 4 || sector * SECTOR + bitmap + blockSize > bytes.length) return `block ${i} at sector ${sector}`;
    if (bytes[sector * SECTOR] === 0) return `the bitmap of block ${i} is empty`;
    blocks.push(sector * SECTOR);
  }
  blocks.sort((a, b) => a - b);
  const overlap = blocks.find((at, i) => i > 0 && at < (blocks[i - 1] ?? 0) + bitmap + blockSize);
  return overlap === undefined ? undefined : `blocks overlap at ${overlap}`;
}

/** What a differencing VHD shows above `base`. */
export function vpcContents(bytes: Uint8Array, base: Uint8Array): Uint8Array {
  const { view, size, bat, blockSize, bitmap } = parse(bytes), contents = new Uint8Array(size);
  contents.set(base.subarray(0, size));
  for (let at = 0; at < size; at += SECTOR) {
    const block = view.getUint32(bat + Math.floor(at / blockSize) * 4), sector = (at % blockSize) / SECTOR;
    if (block === 0xffff_ffff || ((bytes[block * SECTOR + (sector >> 3)] ?? 0) & (0x80 >> (sector & 7))) === 0) continue;
    const from = block * SECTOR + bitmap + sector * SECTOR;
    contents.set(bytes.subarray(from, from + SECTOR), at);
  }
  return contents;
}

/** Puts the checksum of the structure of `length` bytes at `start` where it belongs, `at` bytes into it. */
export function seal(bytes: Uint8Array, start: number, length: number, at: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint32(start + at, 0);
  view.setUint32(start + at, ~bytes.subarray(start, start + length).reduce((sum, byte) => sum + byte, 0));
}

/** Puts both checksums of a dynamic VHD right, and makes its footer the same as the copy at its beginning. */
export function sealAll(bytes: Uint8Array): void {
  seal(bytes, 0, SECTOR, 64);
  seal(bytes, 512, 1024, 36);
  bytes.copyWithin(bytes.length - SECTOR, 0, SECTOR);
}

/** `contents` as a fixed VHD. */
export function fixedVpc(contents: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(contents.length + SECTOR), view = new DataView(bytes.buffer), at = contents.length;
  bytes.set(contents);
  bytes.set(new TextEncoder().encode("conectix"), at);
  view.setBigUint64(at + 16, 2n ** 64n - 1n);
  bytes.set(new TextEncoder().encode("win "), at + 28);
  view.setBigUint64(at + 48, BigInt(contents.length));
  view.setUint32(at + 60, 2);
  seal(bytes, at, SECTOR, 64);
  return bytes;
}

export interface Locator { readonly platform: string; readonly text: string; readonly encoding: "utf16le" | "utf8" }

/** Makes an empty dynamic VHD a differencing one, above `parent`. */
export function differencing(file: MemoryStorage, parent: string, locators: readonly Locator[] = [{ platform: "W2ru", text: `.\\${parent}`, encoding: "utf16le" }]): void {
  const { bat, entries } = parse(file.bytes), at = bat + Math.ceil((entries * 4) / SECTOR) * SECTOR, footer = file.bytes.slice(0, SECTOR);
  void file.truncate(at + (locators.length + 1) * SECTOR);
  const { bytes } = file, view = new DataView(bytes.buffer, bytes.byteOffset);
  bytes.fill(0, at);
  bytes.set(footer, bytes.length - SECTOR);
  view.setUint32(60, 4);
  bytes.set(Buffer.from(parent, "utf16le").swap16(), 512 + 64);
  for (const [i, { platform, text, encoding }] of locators.entries()) {
    const path = Buffer.from(text, encoding), entry = 512 + 576 + i * 24, place = at + i * SECTOR;
    bytes.set(new TextEncoder().encode(platform), entry);
    view.setUint32(entry + 4, SECTOR);
    view.setUint32(entry + 8, path.length);
    view.setBigUint64(entry + 16, BigInt(place));
    bytes.set(path, place);
  }
  sealAll(bytes);
}
