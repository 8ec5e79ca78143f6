import { DiskError } from "../../disk/errors.ts";
import type { Storage } from "../../disk/storage.ts";
import { MachineWorker } from "../../emulator/worker.ts";
import type { KeptMachine } from "../model/machine.ts";
import { overlayFileName } from "../model/names.ts";
import type { DiskEvent, DiskFacts, DiskOrder, Exported } from "./api.ts";
import { copyForDownload, listKept, opfsWorks, overlayPath, readRecord, removeMachine, removeOldDownloads } from "./folder.ts";
import { lockMachine, type MachineLock } from "./lock.ts";
import { MachineDisk } from "./machine-disk.ts";
import { openPatiently } from "./overlay.ts";

/** The page's side of a worker: the machine that is on, its disk, and what this browser keeps. Fails with `DiskError`s. */
export class PageWorker extends MachineWorker<DiskOrder> {
  #disk: MachineDisk | undefined;
  #events: MessagePort | undefined;

  /** Where `DiskEvent`s go; before `create`. */
  listen(events: MessagePort): void {
    this.#events = events;
  }

  /** Whether this browser lets the page keep anything. */
  async canKeep(): Promise<boolean> {
    const works = await opfsWorks();
    if (works) await removeOldDownloads();
    return works;
  }

  list(): Promise<KeptMachine[]> {
    return listKept();
  }

  facts(): DiskFacts {
    return this.#mustDisk().facts;
  }

  /** Makes durable what the guest has written. */
  async flush(): Promise<void> {
    await this.#disk?.storage.flush();
  }

  /** The overlay of the machine that is on. The guest waits while the copy is made, so that it is of one moment. */
  async exportRunning(): Promise<Exported> {
    const { machine } = this, disk = this.#mustDisk(), wasRunning = machine?.running === true;
    await machine?.stop();
    try {
      return await disk.export();
    } finally {
      if (wasRunning) machine?.start();
    }
  }

  /** The overlay of a machine that is off. */
  exportKept(id: string): Promise<Exported> {
    return locked(id, async () => {
      const kept = await readRecord(id);
      if (!kept) throw new DiskError("not-found", "nothing is kept of this machine any more: reload the page", { path: id });
      const { baseFile, baseFormat } = kept.record, name = overlayFileName(baseFile);
      const storage = await openPatiently(overlayPath(id));
      try {
        return { file: await copyForDownload(storage, name), name, baseFile, baseFormat };
      } finally {
        storage.close();
      }
    });
  }

  /** Deletes the changes of a machine that is off. */
  remove(id: string): Promise<void> {
    return locked(id, () => removeMachine(id));
  }

  protected override async open(order: DiskOrder): Promise<Storage> {
    const tell = (event: DiskEvent): void => this.#events?.postMessage(event);
    this.#disk = await MachineDisk.open(order, tell);
    tell({ type: "stage", stage: "emulator" });
    return this.#disk.storage;
  }

  #mustDisk(): MachineDisk {
    if (!this.#disk) throw new DiskError("invalid-argument", "no machine is on");
    return this.#disk;
  }
}

async function locked<T>(id: string, work: () => Promise<T>): Promise<T> {
  const lock: MachineLock = await lockMachine(id);
  try {
    return await work();
  } finally {
    lock.release();
  }
}
