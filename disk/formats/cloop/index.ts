import { refuseWriting } from "../../metadata/readOnly.ts";
import type { Format } from "../format.ts";
import { isCloop, readHeader } from "./header.ts";
import { CloopImage } from "./image.ts";

export const cloop: Format = {
  name: "cloop",
  probe: isCloop,
  *open(storage, { readOnly, tableCache }) {
    refuseWriting(storage, "cloop", readOnly);
    return new CloopImage(storage, yield* readHeader(storage), tableCache);
  },
  *info(storage) {
    const { size } = yield* readHeader(storage);
    return { size, dirty: null };
  },
};
