import { Filter } from "../../disk/filters/filter.ts";
import type { Pending, Storage } from "../../disk/storage.ts";
import type { SaveState } from "../model/machine.ts";

/** A guest that never flushes is saved this many ms after its first unsaved write all the same. */
const AUTOSAVE = 2000;
/** After a save that failed. */
const RETRY = 15_000;

interface Listener {
  onSave(save: SaveState): void;
  /** A save of our own accord failed; the guest's own flushes fail to the guest. */
  onFailure(error: unknown): void;
  /** Closes `inner` and all that goes with it. */
  close(): Pending;
}

/** The guest's disk, which watches whether everything written is durable, and sees to it. */
export class SavedDisk extends Filter {
  #changes = 0;
  #durable = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(inner: Storage, readonly listener: Listener, readonly persistent: boolean) {
    super(inner);
    listener.onSave(persistent ? { state: "saved", at: Date.now() } : { state: "temporary" });
  }

  override write(offset: number, from: Uint8Array): Pending {
    return this.#counted(super.write(offset, from));
  }

  override zero(offset: number, length: number, keep?: boolean): Pending {
    return this.#counted(super.zero(offset, length, keep));
  }

  override discard(offset: number, length: number): Pending {
    return this.#counted(super.discard(offset, length));
  }

  override flush(barrier?: string): Pending {
    const upTo = this.#changes;
    const pending = super.flush(barrier);
    if (pending) return pending.then(() => this.#flushed(upTo));
    this.#flushed(upTo);
  }

  override close(): Pending {
    this.#closed = true;
    clearTimeout(this.#timer);
    return this.listener.close();
  }

  /** A flush covers what is complete: a change that is still under way counts once more when it is done. */
  #counted(pending: Pending): Pending {
    this.#changed();
    return pending?.then(() => this.#changed());
  }

  #changed(): void {
    if (this.#changes++ > this.#durable || !this.persistent) return;
    this.listener.onSave({ state: "saving" });
    this.#saveIn(AUTOSAVE);
  }

  #flushed(upTo: number): void {
    this.#durable = Math.max(this.#durable, upTo);
    if (!this.persistent || this.#durable < this.#changes) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.listener.onSave({ state: "saved", at: Date.now() });
  }

  #saveIn(delay: number): void {
    if (!this.#closed) this.#timer ??= setTimeout(() => { void this.#save(); }, delay);
  }

  async #save(): Promise<void> {
    this.#timer = undefined;
    try {
      await this.flush("autosave");
      if (this.#durable < this.#changes) this.#saveIn(AUTOSAVE);
    } catch (error) {
      this.listener.onFailure(error);
      this.#saveIn(RETRY);
    }
  }
}
