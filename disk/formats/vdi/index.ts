import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Image } from "../../image.ts";
import { BlockMap } from "../../metadata/blockMap.ts";
import type { Format, ImageOptions } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { checkVdi } from "./check.ts";
import { vdiCreation } from "./create.ts";
import { HeaderFields, mapLayout, readFields, readHeader, SIGNATURE, SIGNATURE_AT } from "./header.ts";
import { VdiImage } from "./image.ts";
import { Space } from "./space.ts";

export const vdi: Format = {
  name: "vdi",
  probe: (head) => head.length >= HeaderFields.size && new DataView(head.buffer, head.byteOffset).getUint32(SIGNATURE_AT, true) === SIGNATURE,
  open,
  info,
  creation: vdiCreation,
  check: checkVdi,
  repairs: false,
};

function* open(file: Storage, { readOnly, tableCache }: ImageOptions): Task<Image> {
  const header = yield* readHeader(file);
  const space = readOnly ? new Space(0) : yield* Space.read(file, header);
  return new VdiImage(file, header, new BlockMap(file, mapLayout(header), !readOnly, tableCache), space);
}

function* info(file: Storage): Task<FormatInfo> {
  const { fields } = yield* readFields(file);
  return { size: Math.ceil(fields.size / 512) * 512, clusterSize: fields.blockSize };
}
