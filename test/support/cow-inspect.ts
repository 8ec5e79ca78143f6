const HEADER = 1056, SECTOR = 512;

/** What the disk of a cow image of QEMU's version 2 holds, read without any of our own code. */
export function cowContents(file: Uint8Array, base: Uint8Array): Uint8Array {
  const view = Buffer.from(file.buffer, file.byteOffset, file.length), sectors = Number(view.readBigUInt64BE(1040)) / SECTOR;
  const data = Math.ceil((HEADER + Math.ceil(sectors / 8)) / SECTOR) * SECTOR, contents = new Uint8Array(sectors * SECTOR);
  for (let sector = 0; sector < sectors; sector++) {
    const here = ((view[HEADER + (sector >> 3)] ?? 0) >> (sector & 7)) & 1, from = here === 1 ? file : base;
    const at = (here === 1 ? data : 0) + sector * SECTOR;
    contents.set(from.subarray(at, at + SECTOR), sector * SECTOR);
  }
  return contents;
}
