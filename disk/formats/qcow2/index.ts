import { zstdReady } from "../../codecs/zstd.ts";
import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { close, wait, type Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import { qcow2Amendment } from "./amend.ts";
import { checkQcow2 } from "./check.ts";
import { qcow2Creation } from "./creation.ts";
import { openDataFile } from "./data-file.ts";
import { Encryption } from "./encryption.ts";
import { refuseUnsupported } from "./features.ts";
import { MAGIC, readHeader } from "./header.ts";
import { qcow2Info } from "./info.ts";
import { openImage } from "./open.ts";
import { prepareForWriting } from "./prepare.ts";
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

function* open(file: Storage, options: ImageOptions): Task<Image> {
  const { readOnly, gate, snapshot, secret } = options;
  let header = yield* readHeader(file);
  refuseUnsupported(header, file.name);
  const encryption = yield* Encryption.open(file, header, secret);
  if (!readOnly) header = yield* prepareForWriting(file, header);
  if (snapshot !== undefined) header = yield* snapshotHeader(file, header, snapshot);
  if (header.compressionType === "zstd") yield wait(zstdReady);
  const data = (yield* openDataFile(file, header, gate, readOnly)) ?? file;
  try {
    return yield* openImage(file, data, header, options, encryption);
  } catch (error) {
    if (data !== file) yield close(data);
    throw error;
  }
}
