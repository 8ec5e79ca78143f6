import { inflateZlib, inflateZlibChecked, inflateZlibCheckedLater } from "../../codecs/zlib.ts";
import { DiskError, hex } from "../../errors.ts";
import type { PackedExtent } from "../../image.ts";
import type { Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { entry } from "./entries.ts";
import { corrupt, ENTRY_SIZE, SECTOR, type SparseHeader } from "./header.ts";

/** What stands before a compressed grain: its guest sector (64 bits), and how many bytes follow. */
export const MARKER_SIZE = 12, MARKER_LENGTH_AT = 8;

/** The compressed grain of an entry. `size`: its bytes, fewer than a grain's at the extent's end. */
export function packedExtent(file: Storage, header: SparseHeader, table: Table, index: number, skip: number, length: number, size: number): PackedExtent {
  const host = entry(table, index) * SECTOR;
  if (host >= file.size) throw corrupt(file, `the file is truncated: a compressed grain should stand at ${hex(host)}`, table.at + index * ENTRY_SIZE);
  // As QEMU: a grain that does not shrink takes more than its own size, but no grain takes twice that.
  const packedLength = Math.min(2 * header.grainSize, file.size - host, nextAfter(table, index, header.perTable) - host);
  return { kind: "packed", length, storage: file, offset: host, packedLength, clusterSize: size, skip, ...unpackersFor(header, size) };
}

/** Where the next grain stands, as far as the next entry tells: grains do not overlap, and mostly stand in order. */
function nextAfter(table: Table, index: number, perTable: number): number {
  const here = entry(table, index);
  for (let next = index + 1; next < perTable; next++) {
    const sector = entry(table, next);
    if (sector > here) return sector * SECTOR;
    if (sector !== 0) break;
  }
  return Infinity;
}

/** Of the extent's last grain some writers pack only what is the guest's, others all of it. */
function unpackersFor({ markers, grainSize }: SparseHeader, size: number): Pick<PackedExtent, "unpack" | "unpackLater"> {
  if (!markers) return { unpack: inflateZlib };
  return size === grainSize ? WHOLE : PART;
}

const WHOLE: Pick<PackedExtent, "unpack" | "unpackLater"> = {
  unpack: (packed, into) => { inflateZlibChecked(behindMarker(packed), into); },
  unpackLater: (packed, into) => inflateZlibCheckedLater(behindMarker(packed), into),
};
const PART: Pick<PackedExtent, "unpack"> = { unpack: (packed, into) => { inflateZlib(behindMarker(packed), into); } };

function behindMarker(packed: Uint8Array): Uint8Array {
  const length = packed.length < MARKER_SIZE ? 0 : new DataView(packed.buffer, packed.byteOffset).getUint32(MARKER_LENGTH_AT, true);
  if (length === 0 || MARKER_SIZE + length > packed.length) throw new DiskError("corrupt", `a compressed grain of ${length} bytes, which cannot be: the image is damaged`, { format: "vmdk" });
  return packed.subarray(MARKER_SIZE, MARKER_SIZE + length);
}
