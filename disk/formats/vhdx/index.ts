import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { truncate, type Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { checkVhdx } from "./check.ts";
import { vhdxCreation } from "./create.ts";
import { readLayout } from "./header.ts";
import { MAX_LOG, readHeader } from "./headers.ts";
import { DifferencingVhdxImage, VhdxImage } from "./image.ts";
import { Log } from "./log.ts";
import { readLog, replay, replayed } from "./replay.ts";
import { dataEnd } from "./space.ts";
import { SIGNATURE, signed, unsupported } from "./structures.ts";

export const vhdx: Format = {
  name: "vhdx",
  probe: (head) => head.length >= SIGNATURE.length && signed(head, SIGNATURE),
  open,
  info,
  creation: vhdxCreation,
  check: checkVhdx,
};

function* open(file: Storage, { readOnly, tableCache }: ImageOptions): Task<Image> {
  const header = yield* readHeader(file), log = yield* readLog(file, header);
  if (!readOnly && header.logLength > MAX_LOG) throw unsupported(file, `a VHDX with a log of ${header.logLength} bytes can only be read; ${MAX_LOG} is the bound`, header.logOffset);
  if (readOnly) {
    const view = log === undefined ? file : replayed(file, log), layout = yield* readLayout(view, header);
    return layout.parent === undefined ? new VhdxImage(view, layout, tableCache) : new DifferencingVhdxImage(view, layout, tableCache);
  }
  const clean = log === undefined ? header : yield* replay(file, header, log), layout = yield* readLayout(file, clean);
  if (layout.parent !== undefined) throw unsupported(file, "a differencing VHDX can only be read: put a qcow2 overlay on it, or convert it");
  const end = yield* dataEnd(file, layout);
  // Left by a power cut, or by the image's maker: new blocks begin behind the end of the file, where they are zeros.
  if (file.size > end) yield truncate(file, end);
  return new VhdxImage(file, layout, tableCache, { log: yield* Log.begin(file, clean), end });
}

function* info(file: Storage): Task<FormatInfo> {
  const header = yield* readHeader(file), log = yield* readLog(file, header);
  const { size, blockSize, parent } = yield* readLayout(log === undefined ? file : replayed(file, log), header);
  return { size, clusterSize: blockSize, backing: parent, dirty: log !== undefined };
}
