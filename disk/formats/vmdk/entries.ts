import type { Table } from "../../metadata/table.ts";
import { ENTRY_SIZE } from "./header.ts";

/** What an entry of a grain or a grain table of zeros has in place of a sector, where the header allows it. */
export const ZERO = 1;

/** The sector in an entry of a grain table. */
export function entry(table: Table, index: number): number {
  return table.view.getUint32(index * ENTRY_SIZE, true);
}
