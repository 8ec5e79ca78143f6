import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { BackingReference } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import { flush, read, write, type Task } from "../../task.ts";
import { FEATURE, HeaderFields, LIMITS, type QedHeader } from "./header.ts";

/**
 * Makes the header name another backing file, or none; of its format only `raw` is recorded. Answers the feature bits.
 * The name is durable before the header points at it, where there is room for both names; else one write changes all.
 */
export function* writeBacking(file: Storage, { headerBytes }: QedHeader, features: bigint, to: BackingReference | undefined): Task<bigint> {
  const name = encodeText(to?.file ?? ""), head = new Uint8Array(HeaderFields.size);
  if (name.length > LIMITS.backingName || HeaderFields.size + name.length > headerBytes) throw new DiskError("no-space", "No space left in the file header for this backing file name", { path: file.name, format: "qed", operation: "rebase" });
  yield read(file, 0, head);
  const old = HeaderFields.parse(head), oldEnd = old.backingOffset + old.backingLength, end = HeaderFields.size + name.length;
  // Before the old name, or behind it.
  const free = old.backingLength === 0 || end <= old.backingOffset ? HeaderFields.size : Math.max(oldEnd, HeaderFields.size) + name.length <= headerBytes ? Math.max(oldEnd, HeaderFields.size) : undefined;
  const kept = features & ~(FEATURE.backingFile | FEATURE.noProbe), now = kept | (to === undefined ? 0n : FEATURE.backingFile) | (to?.format === "raw" ? FEATURE.noProbe : 0n);
  const at = free ?? HeaderFields.size, fields = HeaderFields.format({ ...old, features: now, backingOffset: name.length > 0 ? at : 0, backingLength: name.length });
  if (free !== undefined && name.length > 0) {
    yield write(file, at, name);
    yield flush(file, "qed: a backing file's name before the header that points at it");
  }
  yield write(file, 0, free === undefined ? Uint8Array.of(...fields, ...name) : fields);
  return now;
}
