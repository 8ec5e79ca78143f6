const SECTOR = 512;

export interface UmlCow {
  readonly version: 1 | 2 | 3;
  /** Version 1 has the byte order of who wrote it, the others are big-endian. */
  readonly little?: boolean;
  /** Version 3 as 64-bit machines wrote it until 2005. */
  readonly padded?: boolean;
  readonly size: number;
  readonly backing: string;
  /** When the backing file was changed last, in seconds since 1970. */
  readonly mtime: number;
  /** A bit for each sector, least significant first: whether it is in this file. */
  readonly bitmap: Uint8Array;
  /** Every sector in its place; of others any bytes. */
  readonly data: Uint8Array;
}

/** An image as user-mode Linux writes it: arch/um/drivers/cow_user.c. */
export function makeUmlCow({ version, little = false, padded = false, size, backing, mtime, bitmap, data }: UmlCow): Uint8Array {
  const sectors = Math.ceil(size / SECTOR), header = version === 1 ? 280 : version === 2 ? 4120 : padded ? 4136 : 4128;
  const bitmapAt = version === 3 ? 8192 : header, align = version === 3 ? 4096 : SECTOR;
  // The first two versions round the bitmap's length down.
  const reserved = version === 3 ? Math.ceil(sectors / 8) : Math.floor((size + SECTOR - 1) / (8 * SECTOR));
  const dataAt = Math.ceil((bitmapAt + reserved) / align) * align;
  const bytes = new Uint8Array(dataAt + sectors * SECTOR), view = new DataView(bytes.buffer), shift = padded ? 4 : 0;
  const name = version === 3 ? 32 + shift : 8, time = version === 3 ? 8 : name + (version === 1 ? 256 : 4096), at = time + 4 + shift;
  view.setUint32(0, 0x4f4f4f4d, little);
  view.setUint32(4, version, little);
  bytes.set(new TextEncoder().encode(backing), name);
  view.setUint32(time, mtime, little);
  view.setBigUint64(at, BigInt(size), little);
  view.setUint32(at + 8, SECTOR, little);
  if (version === 3) view.setUint32(at + 12, align);
  bytes.set(data, dataAt);
  bytes.set(bitmap.subarray(0, Math.ceil(sectors / 8)), bitmapAt);
  return bytes;
}
