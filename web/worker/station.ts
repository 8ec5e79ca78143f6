import { DiskError } from "../../disk/errors.ts";
import { overlayFileName } from "../model/names.ts";
import type { KeptMachine } from "../model/machine.ts";
import type { BootOrder, Exported, OpenedMachine, Station } from "./api.ts";
import { copyForDownload, listKept, opfsWorks, overlayPath, readRecord, removeMachine, removeOldDownloads } from "./folder.ts";
import { lockMachine } from "./lock.ts";
import { openPatiently } from "./overlay.ts";
import { RunningMachine } from "./running.ts";

/** The worker's side of the page: see `Station`. */
export class WorkerStation implements Station {
  #on: RunningMachine | undefined;

  async canKeep(): Promise<boolean> {
    const works = await opfsWorks();
    if (works) await removeOldDownloads();
    return works;
  }

  list(): Promise<KeptMachine[]> {
    return listKept();
  }

  async boot(order: BootOrder): Promise<OpenedMachine> {
    if (this.#on) throw new DiskError("invalid-argument", "a machine is on already: power it off first");
    this.#on = await RunningMachine.boot(order);
    return this.#on.opened;
  }

  sendSerial(bytes: Uint8Array): void {
    this.#on?.machine.serial.send(bytes);
  }

  sendScancodes(codes: readonly number[]): void {
    void this.#on?.machine.sendScancodes(codes);
  }

  async typeText(text: string): Promise<void> {
    await this.#on?.machine.type(text);
  }

  async pause(): Promise<void> {
    await this.#on?.machine.pause();
  }

  resume(): void {
    this.#on?.machine.resume();
  }

  reset(): void {
    this.#on?.machine.reset();
    this.#on?.machine.resume();
  }

  async flush(): Promise<void> {
    await this.#on?.flush();
  }

  answer(question: number, verdict: "retry" | "fail"): void {
    this.#on?.answer(question, verdict);
  }

  async powerOff(): Promise<void> {
    const on = this.#on;
    this.#on = undefined;
    await on?.powerOff();
  }

  async exportOverlay(id: string): Promise<Exported> {
    if (this.#on?.opened.id === id) return await this.#on.export();
    const lock = await lockMachine(id);
    try {
      const kept = await readRecord(id);
      if (!kept) throw new DiskError("not-found", "nothing is kept of this machine any more: reload the page", { path: id });
      const { baseFile, baseFormat } = kept.record, name = overlayFileName(baseFile);
      const storage = await openPatiently(overlayPath(id));
      try {
        return { file: await copyForDownload(storage, name), name, baseFile, baseFormat };
      } finally {
        storage.close();
      }
    } finally {
      lock.release();
    }
  }

  async remove(id: string): Promise<void> {
    if (this.#on?.opened.id === id && this.#on.opened.persistent) throw new DiskError("locked", "this machine is on: power it off first", { path: id });
    const lock = await lockMachine(id);
    try {
      await removeMachine(id);
    } finally {
      lock.release();
    }
  }
}
