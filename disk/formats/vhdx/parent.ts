import { bytes, Struct, u16, u32 } from "../../bytes/struct.ts";
import type { BackingReference } from "../../image.ts";
import { decodeUtf16, lastPart, relativePath } from "../../metadata/windowsPath.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { corrupt, GUID, guidText, MIB, unsupported } from "./structures.ts";

/** [MS-VHDX] 2.6.2.6 "Parent Locator". */
const LocatorFields = new Struct({ type: bytes(16), reserved: u16, count: u16 }, "little");
const PairFields = new Struct({ keyOffset: u32, valueOffset: u32, keyLength: u16, valueLength: u16 }, "little");

/** Programs write five. */
const MOST_PAIRS = 64;

/** The parent of a differencing image: by its relative path, or by the last part of an absolute one. */
export function* readParent(file: Storage, { offset, length }: { readonly offset: number; readonly length: number }): Task<BackingReference> {
  if (length < LocatorFields.size || length > MIB) throw corrupt(file, `a parent locator of ${length} bytes`, offset);
  const locator = new Uint8Array(length), pairs = new Map<string, string>();
  yield read(file, offset, locator);
  const { type, count } = LocatorFields.parse(locator);
  if (guidText(type) !== GUID.vhdxParent) throw unsupported(file, `a parent of type ${guidText(type)}; only VHDX is known`, offset);
  if (count > MOST_PAIRS || LocatorFields.size + count * PairFields.size > length) throw corrupt(file, `a parent locator of ${count} entries, more than it can have`, offset);
  for (let i = 0; i < count; i++) {
    const { keyOffset, valueOffset, keyLength, valueLength } = PairFields.parse(locator, LocatorFields.size + i * PairFields.size);
    const text = (at: number, size: number): string => decodeUtf16(locator.subarray(at, at + size), true);
    pairs.set(text(keyOffset, keyLength), text(valueOffset, valueLength));
  }
  const relative = pairs.get("relative_path"), absolute = pairs.get("absolute_win32_path") ?? pairs.get("volume_path");
  const name = (relative === undefined ? undefined : relativePath(relative)) ?? (absolute === undefined ? undefined : lastPart(absolute));
  if (name === undefined) throw corrupt(file, "a differencing VHDX that does not name its parent", offset);
  return { file: name, format: "vhdx" };
}
