import { DelayedStorage } from "../../disk/filters/delayed.ts";
import type { Storage } from "../../disk/storage.ts";
import type { Random } from "./random.ts";

/** How the storages below a disk answer: the suites run in every one. */
export const MODES = ["sync", "async", "mixed"] as const;
export type Mode = (typeof MODES)[number];

/** `storage` as one that answers in `mode`. */
export function inMode(mode: Mode, storage: Storage, random: Random): Storage {
  if (mode === "sync") return storage;
  return mode === "async" ? new DelayedStorage(storage) : new DelayedStorage(storage, { delays: () => random.chance(0.4) });
}
