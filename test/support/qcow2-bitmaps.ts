/** The persistent bitmaps of a qcow2 file, read straight from docs/interop/qcow2.rst without any of our own code. */
export interface ReadBitmap {
  readonly name: string;
  readonly inUse: boolean;
  readonly auto: boolean;
  readonly granularity: number;
  /** Numbers of the dirty granules of the disk. */
  readonly dirty: readonly number[];
  readonly flagsAt: number;
  readonly tableOffset: number;
}

export interface BitmapPlaces { readonly bitmaps: readonly ReadBitmap[]; readonly uses: readonly (readonly [offset: number, length: number, what: string])[] }

const EXTENSION = 0x23852875;

export function readBitmaps(bytes: Uint8Array): BitmapPlaces {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), u64 = (at: number): number => Number(view.getBigUint64(at));
  const version = view.getUint32(4), clusterSize = 2 ** view.getUint32(20), size = u64(24), bitmaps: ReadBitmap[] = [], uses: [number, number, string][] = [];
  if (version < 3 || (bytes[95] ?? 0) % 2 === 0) return { bitmaps, uses };
  let at = view.getUint32(100);
  while (view.getUint32(at) !== EXTENSION) {
    if (view.getUint32(at) === 0) throw new Error("the bitmaps bit is set, but there is no bitmaps extension");
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  }
  const count = view.getUint32(at + 8), length = u64(at + 16), start = u64(at + 24);
  uses.push([start, length, "bitmap directory"]);
  let entry = start;
  for (let i = 0; i < count; i++) {
    const tableOffset = u64(entry), tableSize = view.getUint32(entry + 8), flags = view.getUint32(entry + 12), bits = view.getUint8(entry + 17);
    const nameLength = view.getUint16(entry + 18), nameAt = entry + 24 + view.getUint32(entry + 20), granularity = 2 ** bits, dirty: number[] = [];
    const granules = Math.ceil(size / granularity), name = Buffer.from(bytes.subarray(nameAt, nameAt + nameLength)).toString();
    if ((flags & 1) === 0 && tableSize !== Math.ceil(granules / 8 / clusterSize)) throw new Error(`bitmap ${name} has ${tableSize} clusters for ${granules} granules`);
    uses.push([tableOffset, tableSize * 8, `table of bitmap ${name}`]);
    for (let page = 0; page < tableSize; page++) {
      const data = u64(tableOffset + page * 8), ones = data === 1;
      if (data > 1) uses.push([data, clusterSize, `data of bitmap ${name}`]);
      for (let bit = 0; bit < clusterSize * 8; bit++) {
        const granule = page * clusterSize * 8 + bit;
        const set = ones || (data > 1 && (((bytes[data + (bit >> 3)] ?? 0) >> (bit & 7)) & 1) === 1);
        if (set && granule < granules) dirty.push(granule);
      }
    }
    bitmaps.push({ name, inUse: (flags & 1) !== 0, auto: (flags & 2) !== 0, granularity, dirty, flagsAt: entry + 12, tableOffset });
    entry = Math.ceil((nameAt + nameLength) / 8) * 8;
  }
  if (entry !== start + length) throw new Error("the bitmap directory has another length than its entries");
  return { bitmaps, uses };
}
