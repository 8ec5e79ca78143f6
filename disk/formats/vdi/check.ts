import { DiskError } from "../../errors.ts";
import { entryAt, scanBlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { CheckOptions, CheckResult, Finding } from "../check.ts";
import { ENTRY_SIZE, HeaderFields, mapLayout, readHeader } from "./header.ts";

const MIB = 2 ** 20;

/**
 * Checks the block map as `qemu-img check` does, and in its words: every number is that of one block at most and of a
 * block that can be, and the header counts them right. As QEMU it mends nothing; opening for writing mends the count.
 */
export function* checkVdi(file: Storage, { repair, maxFindings = 1000, limits, signal, onProgress }: CheckOptions = {}): Task<CheckResult> {
  const refuse = (what: string): DiskError => new DiskError("unsupported", what, { path: file.name, format: "vdi", operation: "check" });
  if (repair !== undefined) throw refuse("VDI images cannot be repaired; a wrong count of blocks is mended when the image is opened for writing");
  const header = yield* readHeader(file), { blocks, blockSize, dataOffset } = header, layout = mapLayout(header), total = blocks * ENTRY_SIZE;
  if (Math.ceil(blocks / 8) > (limits?.memory ?? 256 * MIB) || total > (limits?.reads ?? 4096 * MIB)) throw refuse(`the image cannot be checked: its block map has ${blocks} entries, more than the check may read`);
  const used = new Uint8Array(Math.ceil(blocks / 8)), findings: Finding[] = [];
  let corruptions = 0, allocated = 0, done = 0;
  const found = (offset: number, message: () => string): undefined => {
    corruptions++;
    if (findings.length < maxFindings) findings.push({ kind: "corruption", message: message(), offset, repaired: false });
  };
  const charge = (bytes: number): void => {
    if (signal?.aborted === true) throw new DiskError("io", "the check was stopped", { path: file.name, format: "vdi", operation: "check" });
    onProgress?.(done += bytes, total);
  };
  yield* scanBlockMap(file, layout, (block, place) => {
    const number = (place - dataOffset) / blockSize, at = entryAt(layout, block), byte = number >>> 3, bit = 1 << (number & 7);
    if (number >= blocks) return found(at, () => `ERROR: block index ${block} too large, is ${number}`);
    allocated++;
    if (((used[byte] ?? 0) & bit) !== 0) return found(at, () => `ERROR: block index ${number} also used by ${number}`);
    used[byte] = (used[byte] ?? 0) | bit;
    return undefined;
  }, charge);
  if (allocated !== header.allocated) found(HeaderFields.offsetOf("allocated"), () => `ERROR: allocated blocks mismatch, is ${allocated}, should be ${header.allocated}`);
  return {
    imageEndOffset: 0, totalClusters: 0, allocatedClusters: 0, fragmentedClusters: 0, compressedClusters: 0,
    leaks: 0, corruptions, leaksFixed: 0, corruptionsFixed: 0, checkErrors: 0, findings, findingCount: corruptions,
  };
}
