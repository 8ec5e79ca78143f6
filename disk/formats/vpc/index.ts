import { DiskError } from "../../errors.ts";
import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import type { FormatInfo } from "../info.ts";
import { vpcCreation } from "./create.ts";
import { begins, COOKIE, TYPE } from "./footer.ts";
import { LIMITS, readHeader } from "./header.ts";
import { FixedVpcImage, SparseVpcImage } from "./image.ts";
import { dataEnd } from "./space.ts";

export const vpc: Format = {
  name: "vpc",
  /** A fixed VHD has nothing at its beginning: as in QEMU it must be named. */
  probe: (head) => begins(head, COOKIE),
  open,
  info,
  creation: vpcCreation,
};

function* open(file: Storage, { readOnly, tableCache }: ImageOptions): Task<Image> {
  const header = yield* readHeader(file);
  if (header.type === TYPE.fixed) return new FixedVpcImage("vpc", file, header.size, readOnly);
  if (!readOnly && header.blockSize > LIMITS.writable) throw new DiskError("unsupported", `a VHD with blocks of ${header.blockSize} bytes can only be read; ${LIMITS.writable} is the bound`, { path: file.name, format: "vpc" });
  return new SparseVpcImage(file, header, readOnly ? undefined : yield* dataEnd(file, header), tableCache);
}

function* info(file: Storage): Task<FormatInfo> {
  const header = yield* readHeader(file);
  return header.type === TYPE.fixed ? { size: header.size } : { size: header.size, clusterSize: header.blockSize, backing: header.parent };
}
