import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { SnapshotChoice } from "../format.ts";
import { checkMappingTable, type Qcow2Header } from "./header.ts";
import { readSnapshots, type Snapshot } from "./snapshots.ts";

/** The header as it would be if the snapshot were the disk: its L1 table and its size. All that is shared is as in `header`. */
export function* snapshotHeader(file: Storage, header: Qcow2Header, choice: SnapshotChoice): Task<Qcow2Header> {
  const { snapshots } = yield* readSnapshots(file, header), found = findSnapshot(snapshots, choice);
  if (found === undefined) throw new DiskError("not-found", `Can't find snapshot ${describe(choice)}`, { path: file.name, format: "qcow2" });
  const { l1Offset, l1Size, diskSize = header.size, id, name } = found;
  try {
    checkMappingTable(header, l1Offset, l1Size, diskSize);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    throw new DiskError(error.kind, `snapshot ${id} (${name}): ${error.what}`, { path: file.name, offset: header.snapshotsOffset, format: "qcow2" });
  }
  return { ...header, l1Offset, l1Size, size: diskSize - (diskSize % 512) };
}

/** As QEMU looks one up: a text is an ID first, and a name only where none has that ID. */
export function findSnapshot(snapshots: readonly Snapshot[], choice: SnapshotChoice): Snapshot | undefined {
  if (typeof choice === "string") return snapshots.find(({ id }) => id === choice) ?? snapshots.find(({ name }) => name === choice);
  if (choice.id === undefined && choice.name === undefined) return undefined;
  return snapshots.find(({ id, name }) => id === (choice.id ?? id) && name === (choice.name ?? name));
}

function describe(choice: SnapshotChoice): string {
  if (typeof choice === "string") return `'${choice}'`;
  return [choice.id === undefined ? [] : `with ID '${choice.id}'`, choice.name === undefined ? [] : `named '${choice.name}'`].flat().join(" and ");
}
