import { DiskError } from "../../errors.ts";
import type { Image } from "../../image.ts";
import { BlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { checkParallels } from "./check.ts";
import { parallelsCreation } from "./create.ts";
import { batLayout, HeaderFields, LIMITS, magicOf, markInUse, readHeader, VERSION } from "./header.ts";
import { ParallelsImage } from "./image.ts";
import { dataEnd } from "./space.ts";

export const parallels: Format = {
  name: "parallels",
  probe: (head) => head.length >= HeaderFields.size && magicOf(head) !== undefined && new DataView(head.buffer, head.byteOffset).getUint32(HeaderFields.offsetOf("version"), true) === VERSION,
  open,
  info,
  creation: parallelsCreation,
  check: checkParallels,
};

function* open(file: Storage, { readOnly, tableCache }: ImageOptions): Task<Image> {
  const header = yield* readHeader(file);
  const bat = new BlockMap(file, batLayout(header), !readOnly, tableCache);
  if (readOnly) return new ParallelsImage(file, header, bat, 0);
  const refuse = (what: string): DiskError => new DiskError("unsupported", what, { path: file.name, format: "parallels" });
  if (header.extended) throw refuse("a Parallels image with a Format Extension (dirty bitmaps) can only be read: the bitmaps would go stale");
  if (header.clusterSize > LIMITS.writable) throw refuse(`a Parallels image with clusters of ${header.clusterSize} bytes can only be read; ${LIMITS.writable} is the bound`);
  const end = yield* dataEnd(file, header);
  yield* markInUse(file);
  return new ParallelsImage(file, header, bat, end);
}

function* info(file: Storage): Task<FormatInfo> {
  const { size, unclean } = yield* readHeader(file);
  return { size, dirty: unclean ? true : null };
}
