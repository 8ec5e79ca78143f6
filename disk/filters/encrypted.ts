import { SECTOR, type SectorCipher } from "../crypto/sectors.ts";
import type { Pending, Storage } from "../storage.ts";
import { read, run, TaskQueue, write, type Task } from "../task.ts";
import { Filter } from "./filter.ts";

/**
 * A storage whose bytes stand encrypted in another, sector by sector. What was never written, or discarded there, reads
 * as anything.
 */
export class EncryptedStorage extends Filter {
  /**
   * `shift`, a multiple of the sector size, is added to an offset to number the sectors. `parts`: for changes of parts of
   * sectors, which are read first: one after the other, over all storages that show the same sectors.
   */
  constructor(inner: Storage, readonly cipher: SectorCipher, readonly shift = 0, readonly parts = new TaskQueue()) {
    super(inner);
  }

  override read(offset: number, into: Uint8Array): Pending {
    if (offset % SECTOR !== 0 || into.length % SECTOR !== 0) return run(this.#readPart(offset, into));
    const pending = super.read(offset, into), decrypt = (): void => { this.cipher.decrypt((offset + this.shift) / SECTOR, into); };
    return pending ? pending.then(decrypt) : decrypt();
  }

  override write(offset: number, from: Uint8Array): Pending {
    if (offset % SECTOR !== 0 || from.length % SECTOR !== 0) return this.parts.run(() => this.#writePart(offset, from));
    // The caller's buffer stays as it is.
    const bytes = from.slice();
    this.cipher.encrypt((offset + this.shift) / SECTOR, bytes);
    return super.write(offset, bytes);
  }

  override zero(offset: number, length: number): Pending {
    return this.write(offset, new Uint8Array(length));
  }

  /** What is gone would not read as zeros. */
  override discard(): Pending {}

  *#readPart(offset: number, into: Uint8Array): Task {
    const { start, bytes } = yield* this.#whole(offset, into.length);
    into.set(bytes.subarray(offset - start, offset - start + into.length));
  }

  *#writePart(offset: number, from: Uint8Array): Task {
    const { start, bytes } = yield* this.#whole(offset, from.length);
    bytes.set(from, offset - start);
    yield write(this, start, bytes);
  }

  /** The whole sectors that the range touches. */
  *#whole(offset: number, length: number): Task<{ start: number; bytes: Uint8Array }> {
    const start = offset - (offset % SECTOR), bytes = new Uint8Array(Math.ceil((offset + length - start) / SECTOR) * SECTOR);
    yield read(this, start, bytes);
    return { start, bytes };
  }
}
