const SECTOR = 512;

export interface BochsOptions {
  readonly version: 1 | 2;
  /** Of the disk, in bytes. */
  readonly size: number;
  /** Guest bytes of an extent. */
  readonly extentSize: number;
  /** The extents in the file, in its order: their number on the disk, and the sectors that they hold. */
  readonly extents: readonly { readonly index: number; readonly sectors: ReadonlyMap<number, Uint8Array> }[];
  readonly subtype?: string;
}

/** A growing image of Bochs. */
export function makeBochs({ version, size, extentSize, extents, subtype = "Growing" }: BochsOptions): Buffer {
  const entries = Math.ceil(size / extentSize), bitmapSize = Math.ceil(extentSize / SECTOR / 8 / SECTOR) * SECTOR;
  const header = Buffer.alloc(SECTOR), catalog = Buffer.alloc(entries * 4, 0xff);
  header.write("Bochs Virtual HD Image", 0);
  header.write("Redolog", 32);
  header.write(subtype, 48);
  for (const [i, value] of [version << 16, SECTOR, entries, bitmapSize, extentSize].entries()) header.writeUInt32LE(value, 64 + 4 * i);
  header.writeBigUInt64LE(BigInt(size), version === 1 ? 84 : 88);
  const parts = extents.map(({ index, sectors }, number) => {
    const part = Buffer.alloc(bitmapSize + extentSize);
    catalog.writeUInt32LE(number, index * 4);
    for (const [sector, data] of sectors) {
      part[sector >> 3] = (part[sector >> 3] ?? 0) | (1 << (sector & 7));
      part.set(data, bitmapSize + sector * SECTOR);
    }
    return part;
  });
  return Buffer.concat([header, catalog, ...parts]);
}

export function bochsContents({ size, extentSize, extents }: BochsOptions): Buffer {
  const contents = Buffer.alloc(size);
  for (const { index, sectors } of extents) {
    for (const [sector, data] of sectors) if (index * extentSize + sector * SECTOR < size) contents.set(data, index * extentSize + sector * SECTOR);
  }
  return contents;
}
