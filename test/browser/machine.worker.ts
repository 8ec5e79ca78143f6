import { MemoryStorage } from "../../disk/storage/memory.ts";
import { DiskError } from "../../disk/errors.ts";
import type { Pending } from "../../disk/storage.ts";
import { MachineWorker, serveMachine } from "../../emulator/worker.ts";

/** A disk for the page's tests: some bytes, that fail to be read from `bad` on until `heal`. */
export interface TestDisk { readonly bytes: Uint8Array<ArrayBuffer>; readonly bad?: number; readonly missing?: boolean }

let healed = false;

class TestStorage extends MemoryStorage {
  constructor(readonly disk: TestDisk) {
    super(disk.bytes.slice(), "test");
  }

  override read(offset: number, into: Uint8Array): Pending {
    if (!healed && this.disk.bad !== undefined && offset >= this.disk.bad) throw new DiskError("io", "this part is bad", { path: this.name, offset });
    return super.read(offset, into);
  }
}

export class TestWorker extends MachineWorker<TestDisk> {
  protected override open(disk: TestDisk): MemoryStorage {
    if (disk.missing) throw new DiskError("not-found", "no such disk", { path: "gone.qcow2" });
    return new TestStorage(disk);
  }

  heal(): void {
    healed = true;
  }
}

serveMachine(new TestWorker());
