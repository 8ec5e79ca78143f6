import { deflateSync } from "node:zlib";

const SECTOR = 512;
/** What stands in a grain: its bytes, or that it is one of zeros (entry 1). */
export type Grain = Uint8Array | "zero";

export interface Build {
  /** Of the guest disk. */
  readonly sectors: number;
  /** Sectors of a grain. */
  readonly grain: number;
  readonly grains?: ReadonlyMap<number, Grain>;
  readonly descriptor?: string;
  readonly version?: number;
  readonly perTable?: number;
  /** Without it the second directory is missing. */
  readonly redundant?: boolean;
  readonly zeroGrain?: boolean;
  /** Grain tables without an entry are left out, and their directory entry is 0; `zero`: it is 1. */
  readonly sparseTables?: boolean | "zero";
}

/** A descriptor as VMware writes them. */
export function descriptorText(createType: string, extents: readonly string[], { cid = "123a45bc", parentCid = "ffffffff", more = "", newline = "\n" } = {}): string {
  const lines = [
    "# Disk DescriptorFile", "version=1", 'encoding="UTF-8"', `CID=${cid}`, `parentCID=${parentCid}`, 'isNativeSnapshot="no"', `createType="${createType}"`, more, "",
    "# Extent description", ...extents, "", "# The Disk Data Base ", "#DDB", "", 'ddb.adapterType = "lsilogic"', 'ddb.longContentID = "00112233445566778899aabb123a45bc"', 'ddb.virtualHWVersion = "8"', "",
  ];
  return lines.join(newline);
}

/** A file that grows as it is written. Everything is little-endian. */
class Writer {
  bytes = Buffer.alloc(0);

  put(at: number, bytes: Uint8Array): void {
    if (at + bytes.length > this.bytes.length) this.bytes = Buffer.concat([this.bytes, Buffer.alloc(at + bytes.length - this.bytes.length)]);
    this.bytes.set(bytes, at);
  }

  u32(at: number, ...values: number[]): void {
    this.put(at, new Uint8Array(Uint32Array.from(values).buffer));
  }

  u64(at: number, value: bigint | number): void {
    this.put(at, new Uint8Array(BigUint64Array.of(BigInt(value)).buffer));
  }

  /** The next whole number of sectors, in sectors. */
  get end(): number {
    return Math.ceil(this.bytes.length / SECTOR);
  }

  /** Sets the length to whole sectors. */
  pad(sectors = this.end): void {
    if (this.bytes.length < sectors * SECTOR) this.put(sectors * SECTOR - 1, new Uint8Array(1));
  }
}

const FLAGS = { newlines: 1, redundant: 2, zeroGrain: 4, compressed: 1 << 16, markers: 1 << 17 };

interface Places { readonly directory: bigint | number; readonly redundant: number; readonly overhead: number; readonly flags: number; readonly compression: number }

function putHeader(file: Writer, at: number, { sectors, grain, version = 1, perTable = 512, descriptor }: Build, { directory, redundant, overhead, flags, compression }: Places): void {
  file.put(at, new Uint8Array(SECTOR));
  file.put(at, Buffer.from("KDMV"));
  file.u32(at + 4, version, flags);
  file.u64(at + 12, sectors);
  file.u64(at + 20, grain);
  file.u64(at + 28, descriptor === undefined ? 0 : 1);
  file.u64(at + 36, descriptor === undefined ? 0 : 20);
  file.u32(at + 44, perTable);
  file.u64(at + 48, redundant);
  file.u64(at + 56, directory);
  file.u64(at + 64, overhead);
  file.put(at + 73, Buffer.from("\n \r\n"));
  file.put(at + 77, Uint8Array.of(compression, 0));
}

/** Virtual Disk Format 5.0, "Hosted Sparse Extents". */
export function buildHosted(build: Build): Uint8Array<ArrayBuffer> {
  const { sectors, grain, grains = new Map(), descriptor, perTable = 512, redundant = true, zeroGrain = false, sparseTables = false } = build, file = new Writer();
  const count = Math.ceil(sectors / grain / perTable), directorySectors = Math.max(1, Math.ceil((count * 4) / SECTOR)), tableSectors = Math.ceil((perTable * 4) / SECTOR);
  const present = Array.from({ length: count }, (_, i) => sparseTables === false || [...grains.keys()].some((one) => Math.floor(one / perTable) === i));
  const one = directorySectors + present.filter(Boolean).length * tableSectors, first = descriptor === undefined ? 1 : 21;
  const places = redundant ? [first, first + one] : [first], overhead = Math.ceil((first + places.length * one) / grain) * grain;
  if (descriptor !== undefined) file.put(SECTOR, Buffer.from(descriptor, "latin1"));
  file.pad(overhead);
  const sectorsOf = new Map([...grains].map(([index, contents]) => {
    if (contents === "zero") return [index, 1];
    const at = Math.ceil(file.end / grain) * grain;
    file.put(at * SECTOR, contents);
    file.pad(at + grain);
    return [index, at];
  }));
  for (const directory of places) {
    let table = directory + directorySectors;
    for (const [i, there] of present.entries()) {
      file.u32(directory * SECTOR + i * 4, there ? table : sparseTables === "zero" ? 1 : 0);
      if (!there) continue;
      for (let k = 0; k < perTable; k++) file.u32(table * SECTOR + k * 4, sectorsOf.get(i * perTable + k) ?? 0);
      table += tableSectors;
    }
  }
  const flags = FLAGS.newlines | (redundant ? FLAGS.redundant : 0) | (zeroGrain ? FLAGS.zeroGrain : 0);
  putHeader(file, 0, build, { directory: places.at(-1) ?? 0, redundant: redundant ? first : 0, overhead, flags, compression: 0 });
  return new Uint8Array(file.bytes);
}

/** The same, "Stream-Optimized Compressed Sparse Extents": tables behind their grains, all told of by a footer. `bare`: without markers, and the header tells. */
export function buildStream(build: Build, { bare = false } = {}): Uint8Array<ArrayBuffer> {
  const { sectors, grain, grains = new Map(), perTable = 512, zeroGrain = false } = build, file = new Writer(), tables: number[] = [], overhead = 128;
  const flags = FLAGS.newlines | FLAGS.compressed | (bare ? 0 : FLAGS.markers) | (zeroGrain ? FLAGS.zeroGrain : 0), compression = 1;
  if (build.descriptor !== undefined) file.put(SECTOR, Buffer.from(build.descriptor, "latin1"));
  file.pad(overhead);
  const marker = (size: number, type: number): void => {
    if (bare) return;
    const at = file.end * SECTOR;
    file.put(at, new Uint8Array(SECTOR));
    file.u64(at, size);
    file.u32(at + 8, 0, type);
  };
  const count = Math.ceil(sectors / grain / perTable);
  for (let i = 0; i < count; i++) {
    const entries = Array.from({ length: perTable }, (_, k) => putPacked(file, i * perTable + k, build, grains.get(i * perTable + k), bare));
    if (entries.every((entry) => entry === 0)) {
      tables.push(0);
      continue;
    }
    marker(Math.ceil((perTable * 4) / SECTOR), 1);
    tables.push(file.end);
    file.u32(file.end * SECTOR, ...entries);
    file.pad();
  }
  marker(Math.ceil((count * 4) / SECTOR), 2);
  const directory = file.end;
  file.u32(directory * SECTOR, ...tables);
  file.pad();
  marker(1, 3);
  if (!bare) {
    putHeader(file, file.end * SECTOR, build, { directory, redundant: 0, overhead, flags, compression });
    marker(0, 0);
  }
  putHeader(file, 0, build, { directory: bare ? directory : 2n ** 64n - 1n, redundant: 0, overhead, flags, compression });
  return new Uint8Array(file.bytes);
}

/** Answers the entry. */
function putPacked(file: Writer, index: number, { grain }: Build, contents: Grain | undefined, bare: boolean): number {
  if (contents === undefined || contents === "zero") return contents === undefined ? 0 : 1;
  const at = file.end, packed = deflateSync(contents), skip = bare ? 0 : 12;
  if (!bare) {
    file.u64(at * SECTOR, index * grain);
    file.u32(at * SECTOR + 8, packed.length);
  }
  file.put(at * SECTOR + skip, packed);
  file.pad();
  return at;
}

/** The same, "ESX Server Sparse Extents". Grain tables are there where they have an entry. */
export function buildCowd({ sectors, grain, grains = new Map() }: Build, parent = ""): Uint8Array<ArrayBuffer> {
  const file = new Writer(), perTable = 4096, count = Math.ceil(sectors / grain / perTable), directorySectors = Math.ceil((count * 4) / SECTOR);
  file.pad(4 + directorySectors);
  for (let i = 0; i < count; i++) {
    const here = [...grains].filter(([index]) => Math.floor(index / perTable) === i);
    if (here.length === 0) continue;
    const table = file.end;
    file.u32(4 * SECTOR + i * 4, table);
    file.pad(table + 32);
    for (const [index, contents] of here) {
      if (contents === "zero") throw new Error("a COWD has no grains of zeros");
      file.u32(table * SECTOR + (index % perTable) * 4, file.end);
      file.put(file.end * SECTOR, contents);
      file.pad();
    }
  }
  file.put(0, Buffer.from("COWD"));
  file.u32(4, 1, 3, sectors, grain, 4, count, file.end);
  if (parent === "") file.u32(32, 520, 16, 63);
  else file.put(32, Buffer.from(parent));
  return new Uint8Array(file.bytes);
}

/** As QEMU's block/vmdk.c reads seSparse extents: grains of 8 sectors, tables of 4096 entries. */
export function buildSeSparse({ sectors, grains = new Map() }: Build): Uint8Array<ArrayBuffer> {
  const file = new Writer(), perTable = 4096, count = Math.ceil(sectors / 8 / perTable), used = [...new Set([...grains.keys()].map((index) => Math.floor(index / perTable)))];
  const directory = 2, tables = directory + Math.ceil((count * 8) / SECTOR), first = tables + used.length * 64;
  const fields: (bigint | number)[] = [0xcafebabe, 0x200000001n, sectors, 8, 64, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, directory, tables - directory, tables, used.length * 64, 0, 0, 0, 0, first, 0];
  for (const [i, field] of fields.entries()) file.u64(i * 8, field);
  file.u64(SECTOR, 0xcafecafe);
  file.pad(first);
  for (const [i, number] of used.entries()) file.u64(directory * SECTOR + number * 8, 0x1000000000000000n + BigInt(i));
  let number = 0;
  for (const [index, contents] of grains) {
    const at = (tables + used.indexOf(Math.floor(index / perTable)) * 64) * SECTOR + (index % perTable) * 8;
    if (contents === "zero") {
      file.u64(at, index % 2 === 0 ? 0x2000000000000000n : 0x1000000000000000n);
      continue;
    }
    file.u64(at, 0x3000000000000000n + (BigInt(number % 4096) << 48n) + BigInt(Math.floor(number / 4096)));
    file.put((first + number * 8) * SECTOR, contents);
    file.pad(first + number * 8 + 8);
    // Some of many grains have numbers of more than twelve bits: they are kept in two parts.
    number += number === 10 ? 4096 : 1;
  }
  return new Uint8Array(file.bytes);
}
