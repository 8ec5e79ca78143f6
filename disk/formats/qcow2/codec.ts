import { deflate } from "../../codecs/deflate.ts";
import { inflate, inflateLater } from "../../codecs/inflate.ts";
import { smaller } from "../../codecs/smaller.ts";
import { unzstd } from "../../codecs/zstd.ts";
import { packZstd } from "../../codecs/zstdPack.ts";
import type { Image } from "../../image.ts";
import type { Pending } from "../../storage.ts";
import type { Qcow2Header } from "./header.ts";

/** How an image's compressed clusters are made and read. */
export interface Codec {
  readonly unpack: (packed: Uint8Array, into: Uint8Array) => void;
  readonly unpackLater?: (packed: Uint8Array, into: Uint8Array) => Pending;
  readonly pack: NonNullable<Image["pack"]>;
}

export function codecOf(header: Qcow2Header): Codec {
  if (header.compressionType === "zstd") return { unpack: unzstd, pack: (block) => smaller(block, packZstd(block)) };
  return { unpack: inflate, unpackLater: inflateLater, pack: (block) => smaller(block, deflate(block, "raw")) };
}
