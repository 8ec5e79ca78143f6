import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { createQcow2 } from "../../disk/formats/qcow2/create.ts";
import { open } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { OpfsStorage } from "../../disk/storage/opfs.web.ts";
import { run } from "../../disk/task.ts";
import type { MachineRecord } from "../model/machine.ts";
import { backingName, machineId } from "../model/names.ts";
import { inspectBase, type OpenBase, overlayGate } from "./base.ts";
import { overlayPath, readRecord, writeRecord } from "./folder.ts";

/** A machine's disk: a qcow2 overlay over its base. */
export interface OpenOverlay {
  readonly record: MachineRecord;
  readonly disk: Disk;
  /** The overlay's file; the disk closes it. */
  readonly file: Storage;
  /** It held changes from before. */
  readonly continued: boolean;
}

/** The kept overlay of this base, or a new one. The caller holds the machine's lock. */
export async function keptOverlay(base: OpenBase, title: string): Promise<OpenOverlay> {
  const id = machineId(base.base);
  const kept = await readRecord(id);
  if (kept) {
    refuseChangedBase(kept.record, base);
    return await openOverlay(kept.record, await openPatiently(overlayPath(id)), base, true);
  }
  const record = await describe(base, title);
  await writeRecord(record);
  return await createOverlay(record, await OpfsStorage.open(overlayPath(id), "replace"), base);
}

/** Nothing is kept of this one. */
export async function temporaryOverlay(base: OpenBase, title: string): Promise<OpenOverlay> {
  return await createOverlay(await describe(base, title), new MemoryStorage(new Uint8Array(0), "changes in memory"), base);
}

async function describe(base: OpenBase, title: string): Promise<MachineRecord> {
  const { format, size } = await inspectBase(base);
  return {
    version: 1, id: machineId(base.base), title, base: base.base, baseFile: backingName(base.base), baseFormat: format,
    baseFingerprint: base.fingerprint, diskSize: size, created: Date.now(),
  };
}

async function createOverlay(record: MachineRecord, file: Storage, base: OpenBase): Promise<OpenOverlay> {
  try {
    await run(createQcow2(file, { size: record.diskSize, backingFile: record.baseFile, backingFormat: record.baseFormat }));
  } catch (error) {
    await file.close();
    throw error;
  }
  return await openOverlay(record, file, base, false);
}

async function openOverlay(record: MachineRecord, file: Storage, base: OpenBase, continued: boolean): Promise<OpenOverlay> {
  try {
    const disk = await open(file, { format: "qcow2", gate: overlayGate(base, file) });
    return { record, disk, file, continued };
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** Over another base the overlay would be garbage, and every write would make it worse. */
function refuseChangedBase(record: MachineRecord, base: OpenBase): void {
  if (record.baseFingerprint === base.fingerprint) return;
  throw new DiskError("corrupt", "the base image is not the one that the kept changes were made over: it was rebuilt, replaced or changed since. Download the changes to use them with the old base, or start fresh with the new one", { path: base.storage.name, operation: "open" });
}

const TRIES = 10, PAUSE = 100;

/** We hold the lock, so a handle that is still open belongs to a page that is just being left. */
export async function openPatiently(path: string): Promise<OpfsStorage> {
  for (let tries = 1; ; tries++) {
    try {
      return await OpfsStorage.open(path, "write");
    } catch (error) {
      if (!(error instanceof DiskError && error.kind === "locked") || tries === TRIES) throw error;
    }
    await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
  }
}
