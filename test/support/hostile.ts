import { DiskError } from "../../disk/errors.ts";
import { open } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Random } from "./generator.ts";

export const viewOf = (file: MemoryStorage): DataView => new DataView(file.bytes.buffer, file.bytes.byteOffset);

/** The error that ends opening `file`. */
export function refused(file: MemoryStorage, format: string, readOnly: boolean): DiskError {
  try {
    void open(file, { readOnly, format });
  } catch (error) {
    if (error instanceof DiskError) return error;
    throw error;
  }
  throw new Error("opened");
}

export interface Damage {
  readonly format: string;
  /** A sound image, and the lengths that it is cut off at. */
  readonly good: Uint8Array;
  readonly lengths: readonly number[];
  /** Damages a copy. */
  readonly damage: (file: MemoryStorage) => void;
  /** What else must end well or in a `DiskError`. */
  readonly also?: (file: MemoryStorage) => void;
}

/** Damages an image, opens it, and uses the disk. Answers how often that went well; anything but a `DiskError` is thrown. */
export async function survivals(random: Random, rounds: number, { format, good, lengths, damage, also }: Damage): Promise<number> {
  const MIB = 2 ** 20;
  let usable = 0;
  for (let round = 0; round < rounds; round++) {
    const file = new MemoryStorage(good.slice(0, random.pick(lengths)), `fuzzed.${format}`);
    damage(file);
    try {
      also?.(file);
      const disk = await open(file, { format, readOnly: random.chance(0.3) });
      if (disk.size > 100 * MIB) continue;
      await disk.read(0, new Uint8Array(Math.min(disk.size, MIB)));
      if (!disk.readOnly && disk.size >= 2 * MIB) await disk.write(MIB + 100, new Uint8Array(5000));
      await disk.close();
      usable++;
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
    }
  }
  return usable;
}
