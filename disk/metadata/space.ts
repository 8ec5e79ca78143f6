import type { Progress, Space } from "../image.ts";
import type { Storage } from "../storage.ts";
import { truncate, write, zero, type Task } from "../task.ts";

/** Between two of them a signal is heard, and progress told. */
const PIECE = { falloc: 64 * 2 ** 20, full: 2 ** 20 } as const;

/** Gives a range at the end of a storage, in which nothing was ever written, its space: none, reserved, or written with zeros. */
export function* giveSpace(storage: Storage, offset: number, length: number, space: Space, progress: (done: number) => void): Task {
  if (storage.size < offset + length) yield truncate(storage, offset + length);
  if (space === "metadata") return;
  const piece = PIECE[space], zeros = new Uint8Array(space === "full" ? Math.min(piece, length) : 0);
  for (let done = 0; done < length; done += piece) {
    const count = Math.min(piece, length - done);
    yield space === "full" ? write(storage, offset + done, zeros.subarray(0, count)) : zero(storage, offset + done, count, true);
    progress(done + count);
  }
}

export const noProgress: Progress = () => {};
