import { DiskError } from "./errors.ts";
import type { Image } from "./image.ts";
import type { Pending } from "./storage.ts";
import { call, wait, type Task } from "./task.ts";

/** One block on its way into an image. `packed`: see `Image.pack`. */
export interface PackedBlock {
  readonly guest: number;
  /** As the guest sees it; shorter than a block at the disk's end. */
  readonly bytes: Uint8Array;
  readonly packed: ReturnType<NonNullable<Image["pack"]>>;
}

/** Begins to compress `from`, whole blocks but for the disk's last. */
export function packBlocks(image: Image, offset: number, from: Uint8Array): PackedBlock[] {
  const { blockSize, packSize: block = blockSize, storage, format } = image, context = { path: storage.name, offset, format, operation: "write compressed" };
  if (image.pack === undefined) throw new DiskError("unsupported", `images of format ${format} cannot be written compressed`, context);
  if (offset % block !== 0 || (from.length % block !== 0 && offset + from.length !== image.size)) {
    throw new DiskError("invalid-argument", `a compressed write must be of whole blocks of ${block} bytes`, context);
  }
  const blocks: PackedBlock[] = [];
  for (let at = 0; at < from.length; at += block) {
    const bytes = from.subarray(at, at + block);
    const packed = image.pack(padded(bytes, block));
    // It is looked at in its turn; a failure of one before it must not leave this one unheard.
    if (packed instanceof Promise) packed.catch(() => undefined);
    blocks.push({ guest: offset + at, bytes, packed });
  }
  return blocks;
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length === length) return bytes;
  const whole = new Uint8Array(length);
  whole.set(bytes);
  return whole;
}

/** Stores the blocks one after another: packed, or plainly where that would not be smaller. */
export function* storeInOrder(blocks: readonly PackedBlock[], store: (guest: number, packed: Uint8Array) => Pending, plain: (guest: number, bytes: Uint8Array) => Pending): Task {
  try {
    for (const { guest, bytes, packed } of blocks) {
      const result = yield* call(() => packed);
      yield wait(() => (result === undefined ? plain(guest, bytes) : store(guest, result)));
    }
  } finally {
    // The caller's buffer is in use until the last one is done with it.
    const running = blocks.map(({ packed }) => packed).filter((packed) => packed instanceof Promise);
    if (running.length > 0) yield wait(() => Promise.allSettled(running).then(() => undefined));
  }
}
