import { DiskError } from "../../errors.ts";
import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { qcowCreation } from "./create.ts";
import { CRYPT, MAGIC, readHeader, VERSION } from "./header.ts";
import { QcowImage } from "./image.ts";
import { Mapping } from "./mapping.ts";
import { L2Places } from "./places.ts";

export const qcow: Format = {
  name: "qcow",
  probe(head) {
    const view = new DataView(head.buffer, head.byteOffset);
    return head.length >= 8 && view.getUint32(0) === MAGIC && view.getUint32(4) === VERSION;
  },
  open,
  info: qcowInfo,
  creation: qcowCreation,
};

function* open(file: Storage, { readOnly, tableCache }: ImageOptions): Task<Image> {
  const header = yield* readHeader(file);
  if (header.crypt !== CRYPT.none) throw new DiskError("unsupported", "the image is encrypted (AES), which disk86 cannot read; convert it with qemu-img", { path: file.name, offset: 36, format: "qcow" });
  const places = readOnly ? undefined : yield* L2Places.collect(file, header);
  return new QcowImage(file, header, new Mapping(file, header, places, tableCache));
}

function* qcowInfo(file: Storage): Task<FormatInfo> {
  const { size, clusterSize, crypt, backing } = yield* readHeader(file);
  return { size, clusterSize, encrypted: crypt !== CRYPT.none, backing };
}
