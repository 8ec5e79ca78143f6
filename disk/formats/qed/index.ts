import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { flush, type Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { checkQed, repairUnclean } from "./check.ts";
import { qedCreation } from "./create.ts";
import { FEATURE, MAGIC, readHeader } from "./header.ts";
import { QedImage } from "./image.ts";
import { Mapping } from "./mapping.ts";
import { clearAutoclear } from "./marks.ts";

export const qed: Format = {
  name: "qed",
  probe: (head) => head.length >= 4 && new DataView(head.buffer, head.byteOffset).getUint32(0, true) === MAGIC,
  open,
  info: qedInfo,
  creation: qedCreation,
  check: checkQed,
};

function* open(file: Storage, { readOnly, tableCache }: ImageOptions): Task<Image> {
  let header = yield* readHeader(file);
  if (!readOnly && (header.features & FEATURE.needCheck) !== 0n) {
    yield* repairUnclean(file);
    header = yield* readHeader(file);
  }
  if (!readOnly && header.autoclear !== 0n) {
    yield* clearAutoclear(file);
    yield flush(file, "autoclear bits cleared before the first write");
  }
  return new QedImage(file, header, yield* Mapping.open(file, header, !readOnly, tableCache));
}

function* qedInfo(file: Storage): Task<FormatInfo> {
  const { size, clusterSize, features, backing } = yield* readHeader(file);
  return { size, clusterSize, dirty: (features & FEATURE.needCheck) !== 0n, backing };
}
