import { setU64 } from "../../bytes/struct.ts";
import type { Storage } from "../../storage.ts";
import { write, type Task } from "../../task.ts";
import { HeaderFields } from "./header.ts";

/** The feature bits in the header; the caller says when they must be durable. */
export function* writeFeatures(file: Storage, features: bigint): Task {
  yield* writeU64(file, HeaderFields.offsetOf("features"), Number(features));
}

/**
 * The guest size in the header. Everything else is durable already, and nothing that may follow relies on the size:
 * the next flush makes it durable.
 */
export function* writeSize(file: Storage, size: number): Task {
  yield* writeU64(file, HeaderFields.offsetOf("size"), size);
}

/** Nobody vouches any more for features that we do not keep up to date. */
export function* clearAutoclear(file: Storage): Task {
  yield* writeU64(file, HeaderFields.offsetOf("autoclear"), 0);
}

function* writeU64(file: Storage, at: number, value: number): Task {
  const bytes = new Uint8Array(8);
  setU64(new DataView(bytes.buffer), 0, value, true);
  yield write(file, at, bytes);
}
