import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Format } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { cowCreation } from "./create.ts";
import { readHeader, versionOf } from "./header.ts";
import { CowImage } from "./image.ts";

export const cow: Format = {
  name: "cow",
  probe(head) {
    const version = versionOf(head);
    return version !== undefined && version >= 1 && version <= 3;
  },
  *open(storage, { readOnly, tableCache }) {
    const header = yield* readHeader(storage);
    if (!readOnly && header.layout !== "qemu-2") {
      throw new DiskError("unsupported", `the image is of user-mode Linux's own version ${header.layout.slice(4)}, which disk86 only reads: open it read-only, or put an overlay on it`, { path: storage.name, format: "cow" });
    }
    return new CowImage(storage, header, readOnly, tableCache);
  },
  info: cowInfo,
  creation: cowCreation,
};

function* cowInfo(storage: Storage): Task<FormatInfo> {
  const { size, sectorSize, backingFile, mtime, layout } = yield* readHeader(storage);
  return {
    size, clusterSize: sectorSize,
    backing: backingFile === undefined ? undefined : { file: backingFile, format: undefined },
    specific: { type: "cow", data: { layout, ...(backingFile === undefined ? {} : { "backing-mtime": mtime }) } },
  };
}
