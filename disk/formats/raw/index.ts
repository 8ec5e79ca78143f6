import type { Format } from "../format.ts";
import { RawImage } from "./image.ts";

export const raw: Format = {
  name: "raw",
  probe: () => false,
  // oxlint-disable-next-line require-yield -- a raw image has nothing to read
  *open(storage, { readOnly }) {
    return new RawImage(storage, readOnly);
  },
};
