import { Struct, u32, u64 } from "../../bytes/struct.ts";
import type { Storage } from "../../storage.ts";
import { read, type Task } from "../../task.ts";
import { decodeUtf16, lastPart, relativePath } from "../../metadata/windowsPath.ts";

export const LOCATORS = { count: 8, size: 24 } as const;
/** Longest path that is believed, in bytes. */
const LONGEST = 64 * 1024;

/** "Parent Locator". */
const LocatorFields = new Struct({ platform: u32, space: u32, length: u32, reserved: u32, offset: u64 });
const PLATFORM = { relative: 0x57327275, absolute: 0x57326b75, mac: 0x4d616358 } as const;

/** One way to the parent, and where in the file it is written: from, to. */
export interface Locator { readonly name: string | undefined; readonly place: readonly [number, number] }

/**
 * The ways to a differencing image's parent, the best first: relative paths, URLs, absolute paths, the parent's bare
 * name. Of a path on some Windows machine the last part is taken: it can only be found beside the image.
 */
export function* readLocators(file: Storage, locators: Uint8Array, parentName: Uint8Array): Task<Locator[]> {
  const found: (Locator & { readonly rank: number })[] = [];
  for (let i = 0; i < LOCATORS.count; i++) {
    const { platform, space, length, offset } = LocatorFields.parse(locators, i * LOCATORS.size);
    if (platform === 0 || length === 0 || length > LONGEST || offset + length > file.size) continue;
    const bytes = new Uint8Array(length);
    yield read(file, offset, bytes);
    // Some programs count the space in sectors, some in bytes.
    const place = [offset, offset + Math.max(length, space < 512 ? space * 512 : space)] as const;
    if (platform === PLATFORM.relative) found.push({ rank: 0, name: relativePath(decodeUtf16(bytes, true)), place });
    else if (platform === PLATFORM.mac) found.push({ rank: 1, name: fromUrl(bytes), place });
    else if (platform === PLATFORM.absolute) found.push({ rank: 2, name: lastPart(decodeUtf16(bytes, true)), place });
    else found.push({ rank: 4, name: undefined, place });
  }
  found.push({ rank: 3, name: lastPart(decodeUtf16(parentName, false)), place: [0, 0] });
  return found.toSorted((a, b) => a.rank - b.rank);
}

/** `file://./base.vhd`, `file:///dir/base.vhd`. */
function fromUrl(bytes: Uint8Array): string | undefined {
  const text = new TextDecoder().decode(bytes).replace(/\0.*$/s, "");
  if (!/^file:\/\//i.test(text)) return undefined;
  try {
    return decodeURIComponent(text.slice("file://".length)).replace(/^(\.\/)+/, "") || undefined;
  } catch {
    return undefined;
  }
}
