import { hex } from "../../errors.ts";
import { Table } from "../../metadata/table.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { ZERO } from "./entries.ts";
import { corrupt, CowdFields, ENTRY_SIZE, HostedFields, SECTOR, type SparseHeader, unsupported } from "./header.ts";
import { Protected, type SectorRange } from "./protected.ts";

/** A directory of this size reaches 2 TiB, as far as entries can point, with grains of a sector. */
const MAX_BYTES = 2 ** 25;

/** The grain directory, and the second one that hosted extents have: where the grain tables stand. */
export class Directory {
  /** Of a grain table in the file, in bytes: whole sectors. */
  readonly tableBytes: number;

  private constructor(readonly file: Storage, readonly header: SparseHeader, readonly first: Table, readonly second: Table | undefined) {
    this.tableBytes = Math.ceil((header.perTable * ENTRY_SIZE) / SECTOR) * SECTOR;
  }

  /** `writable`: with the second one. */
  static *open(file: Storage, header: SparseHeader, writable: boolean): Task<Directory> {
    const bytes = header.entries * ENTRY_SIZE;
    if (bytes > MAX_BYTES) throw unsupported(file, `a grain directory of ${header.entries} entries; disk86's bound is ${MAX_BYTES / ENTRY_SIZE}`);
    const load = function* (at: number): Task<Table> {
      if (bytes > 0 && (at < SECTOR || at + bytes > file.size)) throw corrupt(file, "a grain directory stands where none can be: the file is truncated, or the header wrong", at);
      const table = new Table(at, new Uint8Array(bytes));
      yield read(file, at, table.bytes);
      return table;
    };
    return new Directory(file, header, yield* load(header.directory), writable && header.redundant !== undefined ? yield* load(header.redundant) : undefined);
  }

  /** What is in an entry: 0, `ZERO` where the header allows it, or the sector of a grain table, in bytes. */
  entry(index: number): number {
    const sector = this.first.view.getUint32(index * ENTRY_SIZE, true);
    if (sector === 0 || (sector === ZERO && this.header.zeroGrain)) return sector;
    const at = sector * SECTOR;
    if (at + this.header.perTable * ENTRY_SIZE > this.file.size) throw corrupt(this.file, `the file is truncated: a grain table should stand at ${hex(at)}`, this.first.at + index * ENTRY_SIZE);
    return at;
  }

  /** Where the second copy of a grain table stands; `undefined`: there is none. */
  copyOf(index: number): number | undefined {
    const sector = this.second?.view.getUint32(index * ENTRY_SIZE, true) ?? 0;
    return sector === 0 || (sector === ZERO && this.header.zeroGrain) ? undefined : sector * SECTOR;
  }

  /** Points an entry at a new grain table, and that of the second directory at its copy. */
  set(index: number, at: number, copyAt: number | undefined): void {
    for (const [table, place] of [[this.first, at], [this.second, copyAt]] as const) {
      if (table === undefined || place === undefined) continue;
      table.view.setUint32(index * ENTRY_SIZE, place / SECTOR, true);
      table.touch(index * ENTRY_SIZE, (index + 1) * ENTRY_SIZE);
    }
  }

  get dirty(): boolean {
    return this.first.dirty || this.second?.dirty === true;
  }

  *writeBack(): Task {
    yield* this.first.writeBack(this.file);
    if (this.second !== undefined) yield* this.second.writeBack(this.file);
  }

  clean(): void {
    this.first.clean();
    this.second?.clean();
  }

  /** Everything that is no guest data. An image where two of these overlap must not be written. */
  metadata(): Protected {
    const { header, first, second, tableBytes } = this, range = (at: number, bytes: number): SectorRange => [at / SECTOR, Math.ceil((at + bytes) / SECTOR)];
    const fixed = [range(0, header.kind === "cowd" ? CowdFields.size : HostedFields.size), ...[first, second].flatMap((table) => (table === undefined || header.entries === 0 ? [] : [range(table.at, table.bytes.length)]))];
    if (header.descriptor !== undefined) fixed.push(range(header.descriptor.offset, header.descriptor.length));
    const areas = new Protected(fixed, this.#tables(), tableBytes / SECTOR), twice = areas.twice();
    if (twice !== undefined) throw corrupt(this.file, "tables of the image overlap; it can only be read", twice * SECTOR);
    return areas;
  }

  /** The sectors of all grain tables, of both directories. */
  #tables(): Uint32Array {
    const tables = new Uint32Array(this.header.entries * (this.second === undefined ? 1 : 2));
    let count = 0;
    for (let index = 0; index < this.header.entries; index++) {
      const at = this.entry(index), copyAt = this.copyOf(index);
      if (at > ZERO) tables[count++] = at / SECTOR;
      if (copyAt === undefined) continue;
      if (copyAt + this.tableBytes > this.file.size) throw corrupt(this.file, `the file is truncated: the second copy of a grain table should stand at ${hex(copyAt)}; it can only be read`, copyAt);
      tables[count++] = copyAt / SECTOR;
    }
    return tables.subarray(0, count);
  }
}
