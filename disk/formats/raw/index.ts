import { DiskError } from "../../errors.ts";
import { SPACES } from "../../image.ts";
import { giveSpace, noProgress } from "../../metadata/space.ts";
import { truncate } from "../../task.ts";
import type { Format } from "../format.ts";
import { RawImage } from "./image.ts";

const SECTOR = 512;

export const raw: Format = {
  name: "raw",
  probe: () => false,
  // oxlint-disable-next-line require-yield -- a raw image has nothing to read
  *open(storage, { readOnly }) {
    return new RawImage(storage, readOnly);
  },
  // oxlint-disable-next-line require-yield -- see open
  *info(storage) {
    return { size: Math.ceil(storage.size / SECTOR) * SECTOR };
  },
  creation: {
    options: [{ name: "size", type: "size", help: "Virtual disk size" }],
    // oxlint-disable-next-line require-yield -- a raw image has no more than its bytes
    *measure({ size }) {
      const bytes = Math.ceil(Number(size) / SECTOR) * SECTOR;
      return { required: bytes, fullyAllocated: bytes };
    },
    plan({ size, preallocation = "off" }) {
      const bytes = Math.ceil(Number(size) / SECTOR) * SECTOR, space = SPACES.find((one) => one === preallocation);
      if (space === undefined && preallocation !== "off") throw new DiskError("invalid-argument", `invalid parameter value: ${String(preallocation)}`, { format: "raw", operation: "create" });
      if (space === "metadata") throw new DiskError("unsupported", `Unsupported preallocation mode: ${space}`, { format: "raw", operation: "create" });
      return function* create(into, _files, progress = noProgress) {
        yield truncate(into, 0);
        yield truncate(into, bytes);
        if (space !== undefined) yield* giveSpace(into, 0, bytes, space, (done) => { progress(done, bytes); });
      };
    },
  },
};
