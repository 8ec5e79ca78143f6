import { refuseWriting } from "../../metadata/readOnly.ts";
import type { Format } from "../format.ts";
import { readChunks } from "./chunks.ts";
import { DmgImage } from "./image.ts";
import { hasTrailer, isEncrypted, readTrailer } from "./trailer.ts";

export const dmg: Format = {
  name: "dmg",
  probe: isEncrypted,
  trailer: { suffix: ".dmg", probe: hasTrailer },
  *open(storage, { readOnly }) {
    refuseWriting(storage, "dmg", readOnly);
    const trailer = yield* readTrailer(storage);
    return new DmgImage(storage, trailer.size, yield* readChunks(storage, trailer));
  },
  *info(storage) {
    const { size } = yield* readTrailer(storage);
    return { size, dirty: null };
  },
};
