import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, write, type Task } from "../../task.ts";
import { repairDirty } from "./check.ts";
import { AUTOCLEAR, INCOMPATIBLE } from "./features.ts";
import { HeaderFields3, readHeader, V2_LENGTH, type Qcow2Header } from "./header.ts";

/** What a writer owes the image before its first write. */
export function* prepareForWriting(file: Storage, header: Qcow2Header): Task<Qcow2Header> {
  if ((header.incompatible & INCOMPATIBLE.corrupt) !== 0n) {
    throw new DiskError("corrupt", "the image is marked corrupt and can only be read; repair it with check -r all", { path: file.name, format: "qcow2" });
  }
  if ((header.incompatible & INCOMPATIBLE.dirty) !== 0n) {
    yield* repairDirty(file);
    header = yield* readHeader(file);
  }
  const kept = header.autoclear & (AUTOCLEAR.bitmaps | AUTOCLEAR.rawExternalData);
  if (header.autoclear !== kept) {
    // We keep nothing else that an autoclear bit vouches for up to date.
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, kept);
    yield write(file, V2_LENGTH + HeaderFields3.offsetOf("autoclear"), bytes);
    yield flush(file, "autoclear bits cleared before the first write");
  }
  return { ...header, autoclear: kept };
}
