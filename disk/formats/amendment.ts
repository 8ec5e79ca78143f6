import type { Storage } from "../storage.ts";
import type { Task } from "../task.ts";
import type { CreateOption, CreateValues } from "./creation.ts";

export interface AmendOptions {
  /** How far it is; `total` may still grow. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
  /** Bounds of what is kept in memory and read, in bytes, as for a check. */
  readonly limits?: { readonly memory?: number | undefined; readonly reads?: number | undefined } | undefined;
}

/** Which options of an image can be changed once it is there. */
export interface Amendment {
  readonly options: readonly CreateOption[];
  /**
   * Changes the image in `storage`, which nobody has open. All values are checked before anything is changed. `size` is
   * not among them: a disk changes its size itself, before `values` lead to an older version or after they lead to a newer one.
   */
  apply(storage: Storage, values: CreateValues, options?: AmendOptions): Task;
  /** Whether `values` lead to a version that can do less, so that everything else comes first. */
  downgrades(values: CreateValues): boolean;
}
