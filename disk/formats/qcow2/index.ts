import { zstdReady } from "../../codecs/zstd.ts";
import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { wait, type Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import { qcow2Amendment } from "./amend.ts";
import { bitmapDirectory } from "./bitmap-directory.ts";
import { Qcow2Bitmaps } from "./bitmaps.ts";
import { checkQcow2 } from "./check.ts";
import { codecOf } from "./codec.ts";
import { qcow2Creation } from "./creation.ts";
import { refuseUnsupported } from "./features.ts";
import { MAGIC, readHeader, type Qcow2Header } from "./header.ts";
import { Qcow2Image } from "./image.ts";
import { qcow2Info } from "./info.ts";
import { Mapping } from "./mapping.ts";
import { prepareForWriting } from "./prepare.ts";
import { Refcounts } from "./refcounts.ts";
import { snapshotHeader } from "./snapshot-open.ts";

export const qcow2: Format = {
  name: "qcow2",
  probe: (head) => head.length >= 8 && new DataView(head.buffer, head.byteOffset).getUint32(0) === MAGIC && new DataView(head.buffer, head.byteOffset).getUint32(4) >= 2,
  open,
  info: qcow2Info,
  creation: qcow2Creation,
  amendment: qcow2Amendment,
  check: checkQcow2,
  snapshots: true,
};

function* open(file: Storage, { readOnly, tableCache, snapshot }: ImageOptions): Task<Image> {
  let header = yield* readHeader(file);
  refuseUnsupported(header, file.name);
  if (!readOnly) header = yield* prepareForWriting(file, header);
  if (snapshot !== undefined) header = yield* snapshotHeader(file, header, snapshot);
  if (header.compressionType === "zstd") yield wait(zstdReady);
  const refcounts = readOnly ? undefined : yield* Refcounts.open(file, header, tableCache / 4);
  const mapping = yield* Mapping.open({ file, data: file, header, refcounts, codec: codecOf(header) }, readOnly ? tableCache : (tableCache * 3) / 4);
  refcounts?.protect(metadataClusters(header, mapping));
  if (refcounts === undefined || bitmapDirectory(header) === undefined) return new Qcow2Image(file, header, mapping, refcounts);
  const bitmaps = yield* Qcow2Bitmaps.open(file, header);
  yield* bitmaps.verify();
  refcounts.protect(bitmaps.metadata());
  return new Qcow2Image(file, header, mapping, refcounts, bitmaps);
}

/** Clusters that the guest's data must never reach; the refcounts know their own. */
function* metadataClusters(header: Qcow2Header, mapping: Mapping): Iterable<number> {
  const area = function* (offset: number, bytes: number): Iterable<number> {
    for (let at = 0; at < bytes; at += header.clusterSize) yield (offset + at) / header.clusterSize;
  };
  yield 0;
  yield* area(header.l1Offset, header.l1Size * 8);
  yield* area(header.snapshotsOffset, header.snapshotCount * 40);
  for (let index = 0; index < header.l1Size; index++) {
    const at = mapping.tableAt(index);
    if (at !== 0) yield at / header.clusterSize;
  }
}
