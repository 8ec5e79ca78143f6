import { MemoryStorage } from "../../disk/storage/memory.ts";
import { toFailure } from "../model/failure.ts";
import { machineId, overlayFileName } from "../model/names.ts";
import type { DiskEvent, DiskFacts, DiskOrder, Exported } from "./api.ts";
import { openBase, type OpenBase, refuseOtherFiles } from "./base.ts";
import { copyForDownload, writeSettings } from "./folder.ts";
import { lockMachine } from "./lock.ts";
import { keptOverlay, type OpenOverlay, temporaryOverlay } from "./overlay.ts";
import { SavedDisk } from "./saving.ts";

const TRAFFIC_EVERY = 400;

type Tell = (event: DiskEvent) => void;

/** The disk of a machine that is on: base, overlay, and the lock that keeps other tabs away. */
export class MachineDisk {
  private constructor(readonly order: DiskOrder, readonly overlay: OpenOverlay, readonly storage: SavedDisk) {}

  /** Opens everything, or fails with everything closed again. Closing the result's `storage` closes it all. */
  static async open(order: DiskOrder, tell: Tell): Promise<MachineDisk> {
    const closers: (() => unknown)[] = [];
    const closeAll = async (): Promise<void> => {
      const failures: unknown[] = [];
      for (const close of closers.splice(0).reverse()) {
        try {
          await close();
        } catch (error) {
          failures.push(error);
        }
      }
      if (failures.length > 0) throw failures[0];
    };
    try {
      tell({ type: "stage", stage: "base" });
      if (order.base.kind === "files") refuseOtherFiles(order.base.files, order.files);
      const base = await openBase(order.base, order.files);
      closers.push(() => base.storage.close(), watchTraffic(base, tell));
      if (!order.temporary) {
        const lock = await lockMachine(machineId(base.base));
        closers.push(() => lock.release());
      }
      tell({ type: "stage", stage: "overlay" });
      const overlay = order.temporary ? await temporaryOverlay(base, order.title) : await keptOverlay(base, order.title);
      closers.push(() => overlay.disk.close());
      if (!order.temporary) await writeSettings(overlay.record.id, order.settings);
      const storage = new SavedDisk(overlay.disk, {
        onSave: (save) => tell({ type: "save", save }),
        onFailure: (error) => tell({ type: "save-error", failure: toFailure(error) }),
        close: closeAll,
      }, !order.temporary);
      return new MachineDisk(order, overlay, storage);
    } catch (error) {
      await closeAll().catch(() => undefined);
      throw error;
    }
  }

  get facts(): DiskFacts {
    const { record: { id, baseFile, baseFormat }, continued } = this.overlay;
    return { id, persistent: !this.order.temporary, continued, baseFile, baseFormat };
  }

  /** The overlay as it is in its file: flush first, and let nothing change it meanwhile. */
  async export(): Promise<Exported> {
    const { file, record: { baseFile, baseFormat } } = this.overlay, name = overlayFileName(baseFile);
    const copy = file instanceof MemoryStorage ? new Blob([file.bytes.slice()]) : await copyForDownload(file, name);
    return { file: copy, name, baseFile, baseFormat };
  }
}

/** Tells what was fetched of a base on the web; the result ends that. */
function watchTraffic({ http }: OpenBase, tell: Tell): () => void {
  if (!http) return () => {};
  let told = -1;
  const look = (): void => {
    const { bytes, requests } = http.traffic;
    if (bytes !== told) tell({ type: "traffic", traffic: { bytes, requests, size: http.size } });
    told = bytes;
  };
  look();
  const timer = setInterval(look, TRAFFIC_EVERY);
  return () => clearInterval(timer);
}
