import type { CreateOption } from "../formats/creation.ts";

/** What qemu-img offers for the file that an image of any format is made in. */
const FILE_OPTIONS: readonly CreateOption[] = [
  { name: "nocow", type: "boolean", help: "Turn off copy-on-write (valid only on btrfs)" },
  { name: "preallocation", type: "string", help: "Preallocation mode (allowed values: off, falloc, full)" },
  { name: "extent_size_hint", type: "size", help: "Extent size hint for the image file, 0 to disable" },
];

/**
 * The format's options, and those of the file. The latter are hints to file systems, and here make no difference; only
 * a raw image, which is its file, is preallocated by them.
 */
export function withFileOptions(options: readonly CreateOption[], formatName: string): readonly CreateOption[] {
  return [...options, ...FILE_OPTIONS.filter(({ name }) => name !== "preallocation" || formatName === "raw")];
}
