import { refuseWriting } from "../../metadata/readOnly.ts";
import type { Format } from "../format.ts";
import { isBochs, readHeader } from "./header.ts";
import { BochsImage } from "./image.ts";

export const bochs: Format = {
  name: "bochs",
  probe: isBochs,
  *open(storage, { readOnly, tableCache }) {
    refuseWriting(storage, "bochs", readOnly);
    return new BochsImage(storage, yield* readHeader(storage), tableCache);
  },
  *info(storage) {
    const { size } = yield* readHeader(storage);
    return { size, dirty: null };
  },
};
