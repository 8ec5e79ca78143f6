import type { Extent, Image } from "./image.ts";
import type { Task } from "./task.ts";

/** What backs a guest range: the extent, and how many images down the chain it was found (0: the top). */
export interface Status { readonly extent: Extent; readonly depth: number }

/** Follows `backing` extents down the chain, top first. No I/O; `undefined`: a table has to be loaded first. */
export function resolve(chain: readonly Image[], offset: number, length: number): Extent | undefined {
  for (const image of chain) {
    if (offset >= image.size) break;
    const extent = image.map(offset, Math.min(length, image.size - offset));
    if (extent?.kind !== "backing") return extent;
    length = extent.length;
  }
  return { kind: "zero", length };
}

/** Makes the next `resolve` at `offset` answer. */
export function* loadChain(chain: readonly Image[], offset: number): Task {
  for (const image of chain) {
    if (offset >= image.size) return;
    const extent = yield* lookUp(image, offset, 1);
    if (extent.kind !== "backing") return;
  }
}

/** As `resolve`, loading what it needs, and telling where the answer comes from. */
export function* status(chain: readonly Image[], offset: number, length: number): Task<Status> {
  for (const [depth, image] of chain.entries()) {
    if (offset >= image.size) return { extent: { kind: "zero", length }, depth };
    const extent = yield* lookUp(image, offset, Math.min(length, image.size - offset));
    if (extent.kind !== "backing") return { extent, depth };
    length = extent.length;
  }
  return { extent: { kind: "backing", length }, depth: chain.length };
}

/** `image.map`, loading what it needs. */
export function* lookUp(image: Image, offset: number, length: number): Task<Extent> {
  for (;;) {
    const extent = image.map(offset, length);
    if (extent !== undefined) return extent;
    yield* image.load(offset);
  }
}
