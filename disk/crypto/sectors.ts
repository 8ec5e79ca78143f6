import { setU64 } from "../bytes/struct.ts";
import type { BlockCipher } from "./provider.ts";

/** What is encrypted as one, in bytes. */
export const SECTOR = 512;
const BLOCK = 16, BLOCKS = SECTOR / BLOCK;

/** Encrypts and decrypts whole sectors, in place. `first`: the number of the first one. */
export interface SectorCipher {
  encrypt(first: number, bytes: Uint8Array): void;
  decrypt(first: number, bytes: Uint8Array): void;
}

/** The initial value of each sector, 16 bytes each. */
export type InitialValues = (first: number, count: number) => Uint8Array;

/** The sector's number, little-endian; `bits`: 32 or 64. */
export const plainValues = (bits: 32 | 64): InitialValues => (first, count) => {
  const values = new Uint8Array(count * BLOCK), view = new DataView(values.buffer);
  for (let i = 0; i < count; i++) {
    if (bits === 64) setU64(view, i * BLOCK, first + i, true);
    else view.setUint32(i * BLOCK, (first + i) % 2 ** 32, true);
  }
  return values;
};

/** The sector's number, encrypted with a key of its own. */
export const essivValues = (cipher: BlockCipher): InitialValues => (first, count) => cipher.encrypt(plainValues(64)(first, count));

/** IEEE 1619: XTS. The tweaks are encrypted with a key of their own. All sectors of a call are one call of the block cipher. */
export function xts(data: BlockCipher, tweak: BlockCipher, values: InitialValues): SectorCipher {
  const change = (first: number, bytes: Uint8Array, step: (from: Uint8Array) => Uint8Array): void => {
    const tweaks = allTweaks(tweak.encrypt(values(first, bytes.length / SECTOR)));
    xor(bytes, bytes, tweaks);
    xor(bytes, step(bytes), tweaks);
  };
  return {
    encrypt: (first, bytes) => { change(first, bytes, (from) => data.encrypt(from)); },
    decrypt: (first, bytes) => { change(first, bytes, (from) => data.decrypt(from)); },
  };
}

/** From each sector's first tweak those of all its blocks: each is the one before times x in GF(2^128). */
function allTweaks(firsts: Uint8Array): Uint8Array {
  const count = firsts.length / BLOCK, tweaks = new Uint8Array(count * SECTOR), from = new DataView(firsts.buffer, firsts.byteOffset), into = new DataView(tweaks.buffer);
  for (let sector = 0; sector < count; sector++) {
    let a = from.getUint32(sector * BLOCK, true), b = from.getUint32(sector * BLOCK + 4, true), c = from.getUint32(sector * BLOCK + 8, true), d = from.getUint32(sector * BLOCK + 12, true);
    for (let at = sector * SECTOR, end = at + SECTOR; at < end; at += BLOCK) {
      into.setUint32(at, a, true);
      into.setUint32(at + 4, b, true);
      into.setUint32(at + 8, c, true);
      into.setUint32(at + 12, d, true);
      const carry = (d >>> 31) * 0x87;
      d = (d << 1) | (c >>> 31);
      c = (c << 1) | (b >>> 31);
      b = (b << 1) | (a >>> 31);
      a = (a << 1) ^ carry;
    }
  }
  return tweaks;
}

/** `into` becomes `one` xor `other`. */
function xor(into: Uint8Array, one: Uint8Array, other: Uint8Array): void {
  const aligned = (into.byteOffset | one.byteOffset | other.byteOffset) % 4 === 0, words = aligned ? into.length >> 2 : 0;
  if (aligned) {
    const [a, b, c] = [into, one, other].map((bytes) => new Uint32Array(bytes.buffer, bytes.byteOffset, words)) as [Uint32Array, Uint32Array, Uint32Array];
    for (let i = 0; i < words; i++) a[i] = (b[i] ?? 0) ^ (c[i] ?? 0);
  }
  for (let i = words * 4; i < into.length; i++) into[i] = (one[i] ?? 0) ^ (other[i] ?? 0);
}

/** CBC within each sector. What can go at once does: decrypting all blocks; encrypting the same block of all sectors. */
export function cbc(data: BlockCipher, values: InitialValues): SectorCipher {
  return {
    decrypt(first, bytes) {
      const before = new Uint8Array(bytes.length), initial = values(first, bytes.length / SECTOR), plain = data.decrypt(bytes);
      before.set(bytes.subarray(0, bytes.length - BLOCK), BLOCK);
      for (let sector = 0; sector < bytes.length / SECTOR; sector++) before.set(initial.subarray(sector * BLOCK, (sector + 1) * BLOCK), sector * SECTOR);
      xor(bytes, plain, before);
    },
    encrypt(first, bytes) {
      const count = bytes.length / SECTOR, column = new Uint8Array(count * BLOCK);
      let before = values(first, count);
      for (let block = 0; block < BLOCKS; block++) {
        for (let sector = 0; sector < count; sector++) column.set(bytes.subarray(sector * SECTOR + block * BLOCK, sector * SECTOR + (block + 1) * BLOCK), sector * BLOCK);
        xor(column, column, before);
        before = data.encrypt(column);
        for (let sector = 0; sector < count; sector++) bytes.set(before.subarray(sector * BLOCK, (sector + 1) * BLOCK), sector * SECTOR + block * BLOCK);
      }
    },
  };
}
