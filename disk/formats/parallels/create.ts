import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { Creation } from "../creation.ts";
import { CLOSED, ENTRY_SIZE, HeaderFields, LIMITS, MAGIC, SECTOR, VERSION } from "./header.ts";

/** QEMU's geometry, which nobody uses. */
const HEADS = 16, SECTORS_IN_CYLINDER = 32;

export interface ParallelsCreateOptions {
  /** Guest size in bytes; rounded up to a multiple of 512. */
  readonly size: number;
  /** Rounded up to a multiple of 512; default 1 MiB. */
  readonly clusterSize?: number | undefined;
  /** The form whose entries count sectors ("WithoutFreeSpace"). QEMU makes only the other one. */
  readonly old?: boolean | undefined;
}

interface Layout { readonly sectors: number; readonly tracks: number; readonly entries: number; readonly dataOffset: number; readonly old: boolean }

export const parallelsCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "cluster_size", type: "size", help: "Parallels image cluster size", initial: "1048576" },
  ],
  plan(values) {
    const options = { size: Number(values["size"]), clusterSize: Number(values["cluster_size"]) };
    plan(options);
    return (into) => createParallels(into, options);
  },
};

/** Makes `file`, whatever it held, an empty Parallels image: its BAT is zeros. The header comes last. */
export function* createParallels(file: Storage, options: ParallelsCreateOptions): Task {
  const layout = plan(options);
  yield truncate(file, 0);
  yield truncate(file, layout.dataOffset);
  yield flush(file, "an empty BAT before the header of a new Parallels image");
  yield write(file, 0, formatHeader(layout));
  yield flush(file, "the new Parallels image");
}

/** Throws `invalid-argument` for what no image can have. */
function plan({ size, clusterSize = 2 ** 20, old = false }: ParallelsCreateOptions): Layout {
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "parallels", operation: "create" }); };
  const sectors = Math.ceil(size / SECTOR), tracks = Math.ceil(clusterSize / SECTOR), entries = Math.ceil(sectors / tracks), bytes = tracks * SECTOR;
  if (!(size >= 0)) refuse(`${size} is no size of a disk`);
  if (bytes > LIMITS.writable) refuse(`Cluster size is too large: ${bytes} bytes; disk86 writes at most ${LIMITS.writable}`);
  if (tracks === 0 || entries > LIMITS.entries) refuse("Image size is too large for this cluster size");
  return { sectors, tracks, entries, old, dataOffset: Math.ceil((HeaderFields.size + entries * ENTRY_SIZE) / bytes) * bytes };
}

function formatHeader({ sectors, tracks, entries, dataOffset, old }: Layout): Uint8Array {
  return HeaderFields.format({
    magic: encodeText(old ? MAGIC.old : MAGIC.extended), version: VERSION, heads: HEADS, cylinders: Math.floor(sectors / HEADS / SECTORS_IN_CYLINDER) % 2 ** 32,
    tracks, entries, sectors, inUse: CLOSED, dataOffset: dataOffset / SECTOR, flags: 0, extension: 0,
  });
}
