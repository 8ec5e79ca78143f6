import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { ImageOptions } from "../format.ts";
import { bitmapDirectory } from "./bitmap-directory.ts";
import { Qcow2Bitmaps } from "./bitmaps.ts";
import { codecOf } from "./codec.ts";
import { type Encryption, encryptionHeader } from "./encryption.ts";
import type { Qcow2Header } from "./header.ts";
import { Qcow2Image } from "./image.ts";
import { Mapping } from "./mapping.ts";
import { Refcounts } from "./refcounts.ts";

/** The image of a header that was looked at; `data` is where the guest's data stands: `file`, or a file of its own. */
export function* openImage(file: Storage, data: Storage, header: Qcow2Header, { readOnly, tableCache }: Pick<ImageOptions, "readOnly" | "tableCache">, encryption?: Encryption): Task<Qcow2Image> {
  const refcounts = readOnly ? undefined : yield* Refcounts.open(file, header, tableCache / 4);
  const mapping = yield* Mapping.open({ file, data, header, refcounts, codec: codecOf(header) }, readOnly ? tableCache : (tableCache * 3) / 4);
  refcounts?.protect(metadataClusters(header, mapping));
  if (refcounts === undefined || bitmapDirectory(header) === undefined) return new Qcow2Image(file, header, mapping, refcounts, undefined, encryption);
  const bitmaps = yield* Qcow2Bitmaps.open(file, header);
  yield* bitmaps.verify();
  refcounts.protect(bitmaps.metadata());
  return new Qcow2Image(file, header, mapping, refcounts, bitmaps, encryption);
}

/** Clusters that the guest's data must never reach; the refcounts know their own. */
function* metadataClusters(header: Qcow2Header, mapping: Mapping): Iterable<number> {
  const area = function* (offset: number, bytes: number): Iterable<number> {
    for (let at = 0; at < bytes; at += header.clusterSize) yield (offset + at) / header.clusterSize;
  };
  yield 0;
  yield* area(header.l1Offset, header.l1Size * 8);
  yield* area(header.snapshotsOffset, header.snapshotCount * 40);
  const encryption = encryptionHeader(header, mapping.file.name);
  if (encryption !== undefined) yield* area(encryption.offset, encryption.length);
  for (let index = 0; index < header.l1Size; index++) {
    const at = mapping.tableAt(index);
    if (at !== 0) yield at / header.clusterSize;
  }
}
