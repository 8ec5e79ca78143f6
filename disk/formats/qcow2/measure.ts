import { DiskError } from "../../errors.ts";
import type { Task } from "../../task.ts";
import type { CreateValues, DataIn, Measurement } from "../creation.ts";

const ENTRY = 8;

const roundUp = (value: number, unit: number): number => Math.ceil(value / unit) * unit;

/**
 * What a new image takes: its metadata always as for one that is full, as QEMU reckons it (block/qcow2.c,
 * qcow2_measure). Above a backing file nobody knows how much of the data it shares: all counts.
 */
export function* measureQcow2(values: CreateValues, data: DataIn | undefined): Task<Measurement> {
  const cluster = Number(values["cluster_size"]), size = roundUp(Number(values["size"]), cluster), space = values["preallocation"];
  if (values["encrypt.format"] !== undefined || values["encryption"] === true) throw new DiskError("unsupported", "encrypted images cannot be measured: measure without encrypt.format", { format: "qcow2", operation: "measure" });
  const fullyAllocated = size + metadataBytes(size, cluster, Number(values["refcount_bits"]), values["extended_l2"] === true ? 2 * ENTRY : ENTRY);
  const full = space === "full" || space === "falloc" || (data !== undefined && values["backing_file"] !== undefined);
  const required = full ? size : data === undefined ? 0 : yield* data(cluster);
  return { fullyAllocated, required: fullyAllocated - size + required };
}

/** Header, L2, L1, refcount blocks and their table, each in whole clusters. */
function metadataBytes(size: number, cluster: number, refcountBits: number, l2Entry: number): number {
  const l2 = roundUp((size / cluster) * l2Entry, cluster), l1 = roundUp((l2 / cluster) * ENTRY, cluster), tables = cluster + l2 + l1;
  const clusters = (tables + size) / cluster, perBlock = (cluster * 8) / refcountBits, perTable = cluster / ENTRY;
  let blocks = 0, table = 0;
  for (let last = -1; last !== blocks + table;) {
    last = blocks + table;
    blocks = Math.ceil((clusters + table + blocks) / perBlock);
    table = Math.ceil(blocks / perTable);
  }
  return tables + (blocks + table) * cluster;
}
