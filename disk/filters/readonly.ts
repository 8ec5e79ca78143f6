import { DiskError } from "../errors.ts";
import { Filter } from "./filter.ts";

/** Refuses every change to `inner`, whatever `inner` would allow. */
export class ReadOnlyStorage extends Filter {
  override get readOnly(): boolean {
    return true;
  }

  override write(offset: number): never {
    throw this.#refusal("write", offset);
  }

  override zero(offset: number): never {
    throw this.#refusal("zero", offset);
  }

  override discard(offset: number): never {
    throw this.#refusal("discard", offset);
  }

  override truncate(size: number): never {
    throw this.#refusal("truncate", size);
  }

  override flush(): void {}

  #refusal(operation: string, offset: number): DiskError {
    return new DiskError("read-only", "is used read-only here: changes need an overlay, or opening it for writing", { path: this.name, offset, operation });
  }
}
