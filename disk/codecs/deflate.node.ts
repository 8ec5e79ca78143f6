import { deflate, deflateRaw, deflateRawSync, deflateSync } from "node:zlib";
import { type Deflate, deflateBound, LEVEL, MEMORY_LEVEL, WINDOW_BITS } from "./deflate.ts";

/** Below this the way to a thread and back costs more than the work, in bytes. */
const WORTH_A_THREAD = 16384;

/** Node's own zlib: four times as fast as pako, and on the threads of its pool, several blocks at a time. */
export const deflateNode: Deflate = (block, form) => {
  // One chunk of output: no second one to be joined to it.
  const options = { level: LEVEL, memLevel: MEMORY_LEVEL, windowBits: WINDOW_BITS[form], chunkSize: deflateBound(block.length) };
  if (block.length < WORTH_A_THREAD) return (form === "raw" ? deflateRawSync : deflateSync)(block, options);
  return new Promise((resolve, reject) => {
    (form === "raw" ? deflateRaw : deflate)(block, options, (error, packed) => {
      if (error === null) resolve(packed);
      else reject(error);
    });
  });
};
