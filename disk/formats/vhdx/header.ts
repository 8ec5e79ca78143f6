import type { Struct } from "../../bytes/struct.ts";
import type { BackingReference } from "../../image.ts";
import { BACKING, INVALID, ZERO, type BlockMapLayout } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import type { Header } from "./headers.ts";
import { readParent } from "./parent.ts";
import {
  AT, corrupt, DiskSize, FileParameters, GUID, guidText, isSound, METADATA_FLAG, METADATA_TABLE_SIZE, MetadataFields, MetadataTableFields, MIB, PARAMETER, RegionFields, REGIONS_SIZE, RegionTableFields, SectorSize, signed, unsupported,
} from "./structures.ts";

export const ENTRY_SIZE = 8;
/** Bounds of the specification. */
export const LIMITS = { size: 64 * 2 ** 40, blockSize: { min: MIB, max: 256 * MIB }, regions: 2047, metadata: 2047 } as const;
/** Sectors whose bits one sector bitmap block has. */
const CHUNK_SECTORS = 2 ** 23;
/** [MS-VHDX] 2.5.1.1 "Payload BAT Entry States". */
export const STATE = { notPresent: 0, undefined: 1, zero: 2, unmapped: 3, oldUnmapped: 5, fullyPresent: 6, partiallyPresent: 7 } as const;
const READ_AS_ZERO = new Set<number>([STATE.undefined, STATE.zero, STATE.unmapped, STATE.oldUnmapped]);

/** What regions and metadata say, checked. Sizes in bytes. */
export interface VhdxLayout {
  readonly size: number;
  readonly blockSize: number;
  readonly sectorSize: number;
  /** Blocks of one sector bitmap block. */
  readonly chunk: number;
  readonly batOffset: number;
  /** Entries of the BAT, those of sector bitmap blocks among them. */
  readonly entries: number;
  /** Where log, regions and header section are: from, to. */
  readonly taken: readonly (readonly [number, number])[];
  readonly parent: BackingReference | undefined;
}

interface Region { readonly offset: number; readonly length: number }

export function* readLayout(file: Storage, { logOffset, logLength }: Header): Task<VhdxLayout> {
  const regions = yield* readRegions(file), bat = regions.get(GUID.bat), metadata = regions.get(GUID.metadata);
  if (bat === undefined || metadata === undefined) throw corrupt(file, "the region table names no BAT or no metadata", AT.regions[0]);
  const taken = [[0, MIB], [logOffset, logOffset + logLength], ...[...regions.values()].map(({ offset, length }) => [offset, offset + length])] as [number, number][];
  const overlap = taken.toSorted((a, b) => a[0] - b[0]).some(([from], i, all) => i > 0 && from < (all[i - 1]?.[1] ?? 0));
  if (overlap) throw corrupt(file, "regions overlap each other, the header or the log", AT.regions[0]);
  const items = yield* readMetadata(file, metadata), layout = yield* readItems(file, items);
  const blocks = Math.ceil(layout.size / layout.blockSize), chunks = Math.ceil(blocks / layout.chunk);
  const entries = layout.parent === undefined ? blocks + Math.max(0, Math.floor((blocks - 1) / layout.chunk)) : chunks * (layout.chunk + 1);
  if (entries * ENTRY_SIZE > bat.length) throw corrupt(file, `the BAT has ${bat.length / ENTRY_SIZE} entries, too few for a disk of ${layout.size} bytes`, bat.offset);
  if (bat.offset + entries * ENTRY_SIZE > file.size) throw corrupt(file, "the file is truncated: it ends before its BAT does", bat.offset);
  return { ...layout, batOffset: bat.offset, entries, taken };
}

/** The regions by GUID, from the first of the two tables that is sound. */
function* readRegions(file: Storage): Task<Map<string, Region>> {
  for (const at of AT.regions) {
    const table = new Uint8Array(REGIONS_SIZE), regions = new Map<string, Region>();
    yield read(file, at, table);
    if (!signed(table, "regi") || !isSound(table)) continue;
    const { count } = RegionTableFields.parse(table);
    if (count > LIMITS.regions) throw corrupt(file, `a region table of ${count} entries`, at);
    for (let i = 0; i < count; i++) {
      const place = RegionTableFields.size + i * RegionFields.size, { guid, offset, length, required } = RegionFields.parse(table, place), name = guidText(guid);
      if (regions.has(name)) throw corrupt(file, `the region ${name} is there twice`, at + place);
      if (offset % MIB !== 0 || length % MIB !== 0 || offset < MIB) throw corrupt(file, `the region ${name} stands at an impossible place, ${offset}, or has an impossible length, ${length}`, at + place);
      if ((required & 1) !== 0 && name !== GUID.bat && name !== GUID.metadata) throw unsupported(file, `an unknown region that must be known: ${name}`, at + place);
      regions.set(name, { offset, length });
    }
    return regions;
  }
  throw corrupt(file, "no sound region table", AT.regions[0]);
}

/** The metadata items by GUID; offsets are those in the file. */
function* readMetadata(file: Storage, { offset: at, length: room }: Region): Task<Map<string, Region>> {
  const table = new Uint8Array(METADATA_TABLE_SIZE), items = new Map<string, Region>();
  yield read(file, at, table);
  const { count } = MetadataTableFields.parse(table);
  if (!signed(table, "metadata") || count > LIMITS.metadata) throw corrupt(file, "the metadata table is damaged", at);
  for (let i = 0; i < count; i++) {
    const place = MetadataTableFields.size + i * MetadataFields.size, { guid, offset, length, flags } = MetadataFields.parse(table, place), name = guidText(guid);
    const known = KNOWN.has(name) && (flags & METADATA_FLAG.user) === 0;
    if ((flags & METADATA_FLAG.required) !== 0 && !known) throw unsupported(file, `unknown metadata that must be known: ${name}`, at + place);
    if (!known) continue;
    if (items.has(name)) throw corrupt(file, `the metadata item ${name} is there twice`, at + place);
    if (offset + length > room) throw corrupt(file, `the metadata item ${name} lies outside its region`, at + place);
    items.set(name, { offset: at + offset, length });
  }
  return items;
}

const KNOWN = new Set<string>([GUID.fileParameters, GUID.size, GUID.page83, GUID.logicalSector, GUID.physicalSector, GUID.parentLocator]);

function* readItems(file: Storage, items: ReadonlyMap<string, Region>): Task<Omit<VhdxLayout, "batOffset" | "entries" | "taken">> {
  const { blockSize, flags } = yield* item(file, items, GUID.fileParameters, FileParameters);
  const { value: size } = yield* item(file, items, GUID.size, DiskSize), { value: sectorSize } = yield* item(file, items, GUID.logicalSector, SectorSize), at = items.get(GUID.size)?.offset;
  if (blockSize < LIMITS.blockSize.min || blockSize > LIMITS.blockSize.max || !Number.isInteger(Math.log2(blockSize))) throw corrupt(file, `VHDX blocks of ${blockSize} bytes; a power of two from 1 to 256 MiB is possible`, items.get(GUID.fileParameters)?.offset);
  if (sectorSize !== 512 && sectorSize !== 4096) throw corrupt(file, `sectors of ${sectorSize} bytes; 512 and 4096 are possible`, items.get(GUID.logicalSector)?.offset);
  if (size > LIMITS.size || size % sectorSize !== 0) throw corrupt(file, `a disk of ${size} bytes; whole sectors up to 64 TiB are possible`, at);
  const place = items.get(GUID.parentLocator), hasParent = (flags & PARAMETER.hasParent) !== 0;
  if (hasParent && place === undefined) throw corrupt(file, "a differencing VHDX that does not name its parent", at);
  return { size, blockSize, sectorSize, chunk: (CHUNK_SECTORS * sectorSize) / blockSize, parent: hasParent && place !== undefined ? yield* readParent(file, place) : undefined };
}

function* item<V extends object>(file: Storage, items: ReadonlyMap<string, Region>, guid: string, fields: Struct<V>): Task<V> {
  const place = items.get(guid), bytes = new Uint8Array(fields.size);
  if (place === undefined || place.length < fields.size) throw corrupt(file, `the metadata item ${guid} is missing`);
  yield read(file, place.offset, bytes);
  return fields.parse(bytes);
}

/** An entry is a state in its lowest three bits, and the block's offset in MiB from bit 20 on. */
export function batLayout({ parent, blockSize, chunk, batOffset, entries }: VhdxLayout): BlockMapLayout {
  const absent = parent === undefined ? ZERO : BACKING;
  return {
    format: "vhdx", noun: "block", blockSize, entries, chunk, entrySize: ENTRY_SIZE, slicesAt: batOffset, firstEntry: 0, dataOffset: MIB,
    decode(view, at) {
      const low = view.getUint32(at, true), state = low & 7;
      if (state === STATE.fullyPresent || (state === STATE.partiallyPresent && parent !== undefined)) return offsetIn(view, at);
      if (state === STATE.notPresent) return absent;
      return READ_AS_ZERO.has(state) ? ZERO : INVALID;
    },
    encode(view, at, place) {
      view.setUint32(at, (place % 2 ** 32) + STATE.fullyPresent, true);
      view.setUint32(at + 4, Math.floor(place / 2 ** 32), true);
    },
  };
}

/** The offset in a BAT entry, in bytes. */
export function offsetIn(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * 2 ** 32 + Math.floor(view.getUint32(at, true) / MIB) * MIB;
}
