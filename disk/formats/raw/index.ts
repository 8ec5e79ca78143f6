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
    plan: ({ size }) => function* create(into) {
      yield truncate(into, 0);
      yield truncate(into, Math.ceil(Number(size) / SECTOR) * SECTOR);
    },
  },
};
