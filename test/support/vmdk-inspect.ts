const SECTOR = 512;

interface Tables { readonly entries: readonly number[]; readonly ranges: readonly (readonly [start: number, end: number])[] }

/** Everything that a grain directory leads to. Written without the driver. */
function follow(view: DataView, directory: number, count: number, perTable: number): Tables {
  const entries: number[] = [], ranges: [number, number][] = [[directory, directory + Math.ceil((count * 4) / SECTOR)]];
  for (let i = 0; i < count; i++) {
    const table = view.getUint32(directory * SECTOR + i * 4, true);
    if (table > 1) ranges.push([table, table + Math.ceil((perTable * 4) / SECTOR)]);
    for (let k = 0; k < perTable; k++) entries.push(table > 1 ? view.getUint32(table * SECTOR + k * 4, true) : 0);
  }
  return { entries, ranges };
}

function tablesOf(view: DataView): { grain: number; tables: Tables[] } {
  const word = (at: number): number => view.getUint32(at, true), cowd = word(0) === 0x44574f43;
  const grain = cowd ? word(16) : word(20), perTable = cowd ? 4096 : word(44), capacity = cowd ? word(12) : word(12), count = Math.ceil(capacity / grain / perTable);
  const directories = cowd ? [word(20)] : [word(56), ...((word(8) & 2) === 0 ? [] : [word(48)])];
  return { grain, tables: directories.map((directory) => follow(view, directory, count, perTable)) };
}

/** What must never be, by either directory: a grain twice, behind the end of the file, or where there are tables. Not for compressed grains. */
export function brokenVmdk(bytes: Uint8Array): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), { grain, tables } = tablesOf(view), end = Math.ceil(bytes.length / SECTOR);
  const metadata: (readonly [number, number])[] = [[0, 1], ...tables.flatMap(({ ranges }) => ranges)];
  for (const [index, { entries }] of tables.entries()) {
    const seen = new Set<number>();
    for (const [place, sector] of entries.entries()) {
      if (sector <= 1) continue;
      const what = `grain ${place} of directory ${index}, at sector ${sector},`;
      if (seen.has(sector)) return `${what} is another's, too`;
      if (sector >= end) return `${what} is behind the end at ${end}`;
      if (metadata.some(([from, to]) => sector < to && from < sector + grain)) return `${what} is where there are tables`;
      seen.add(sector);
    }
  }
  return undefined;
}

/** Whether both directories lead to the same grains. */
export function inStep(bytes: Uint8Array): boolean {
  const { tables: [first, second] } = tablesOf(new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  return second === undefined || JSON.stringify(first?.entries) === JSON.stringify(second.entries);
}

/** The content ID in the first 10 KiB of descriptor, at `offset`. */
export function contentIdOf(bytes: Uint8Array, offset: number): string | undefined {
  return /^CID=([0-9a-f]+)/m.exec(Buffer.from(bytes.subarray(offset, offset + 20 * SECTOR)).toString("latin1"))?.[1];
}
