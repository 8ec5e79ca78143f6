import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { Creation } from "../creation.ts";
import { MAGIC, NAME_ROOM, QemuFields, roundUp, SECTOR } from "./header.ts";

export interface CowCreateOptions {
  /** Guest size in bytes; rounded up to a multiple of 512. */
  readonly size: number;
  /** As it is to stand in the image. The format has no place for its format: it is probed. */
  readonly backingFile?: string | undefined;
  /** When the backing file was last changed, in seconds since 1970. */
  readonly backingMtime?: number | undefined;
}

/** Makes `file`, whatever it held, an empty cow image of QEMU's version 2. The sector with the magic comes last. */
export function* createCow(file: Storage, options: CowCreateOptions): Task {
  const header = formatHeader(options), sectors = Math.ceil(options.size / SECTOR);
  yield truncate(file, 0);
  yield truncate(file, header.length + Math.ceil(sectors / 8));
  yield write(file, SECTOR, header.subarray(SECTOR));
  yield flush(file, "tables before the header that points at them");
  yield write(file, 0, header.subarray(0, SECTOR));
  yield flush(file, "the new image");
}

function formatHeader({ size, backingFile = "", backingMtime = 0 }: CowCreateOptions): Uint8Array {
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "cow", operation: "create" }); };
  const name = encodeText(backingFile), bytes = roundUp(size, SECTOR);
  if (!(size >= 0)) refuse(`${size} is no size of a disk`);
  if (!Number.isSafeInteger(bytes * 2)) refuse(`a disk of ${size} bytes is larger than disk86 can address in this format (4 PiB)`);
  if (name.length >= NAME_ROOM) refuse(`the backing file name is too long: ${name.length} bytes; at most ${NAME_ROOM - 1} fit`);
  if (name.includes(0)) refuse("the backing file name has a NUL in it");
  if (!(Number.isInteger(backingMtime) && backingMtime >= 0 && backingMtime < 2 ** 32)) refuse(`${backingMtime} is no time that fits 32 bits`);
  const backing = new Uint8Array(NAME_ROOM);
  backing.set(name);
  return QemuFields.format({ magic: MAGIC, version: 2, backing, mtime: backingMtime, padding: 0, size: bytes, sectorSize: SECTOR, end: 0 });
}

export const cowCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "backing_file", type: "string", help: "File name of a base image" },
    { name: "backing_fmt", type: "string", help: "Format of the base image; it is checked, but the new image cannot record it" },
    { name: "backing_mtime", type: "number", help: "When the base image was last changed, in seconds since 1970" },
  ],
  plan({ size, backing_file: file, backing_fmt: format, backing_mtime: mtime }) {
    if (format !== undefined && file === undefined) throw new DiskError("invalid-argument", "Backing format cannot be used without backing file", { format: "cow", operation: "create" });
    const options = { size: Number(size), backingFile: file === undefined ? undefined : String(file), backingMtime: mtime === undefined ? undefined : Number(mtime) };
    formatHeader(options);
    return (into) => createCow(into, options);
  },
};
