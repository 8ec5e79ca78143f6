import type { VerbEntry } from "./verb.ts";

/** The verbs that need only disks. A verb is loaded when it is called: the program starts fast however many there are. */
export const DISK_VERBS: readonly VerbEntry[] = [
  { name: "create", summary: "make an empty image, or an overlay on another image", load: async () => (await import("./create.ts")).create },
  { name: "info", summary: "tell what an image is", load: async () => (await import("./info.ts")).info },
  { name: "check", summary: "look for errors in an image, and mend them", load: async () => (await import("./check.ts")).check },
  { name: "map", summary: "list where the guest's bytes stand", load: async () => (await import("./map.ts")).map },
  { name: "compare", summary: "tell whether two images read the same", load: async () => (await import("./compare.ts")).compare },
  { name: "resize", summary: "make a disk larger or smaller", load: async () => (await import("./resize.ts")).resize },
  { name: "convert", summary: "copy an image to another format, or several into one", load: async () => (await import("./convert.ts")).convert },
  { name: "amend", summary: "change options of an image that is there", load: async () => (await import("./amend.ts")).amend },
  { name: "bitmap", summary: "make and change the persistent bitmaps of an image", load: async () => (await import("./bitmap.ts")).bitmap },
  { name: "commit", summary: "write an overlay's changes into the image it stands on", load: async () => (await import("./commit.ts")).commit },
  { name: "rebase", summary: "put an overlay on another image", load: async () => (await import("./rebase.ts")).rebase },
  { name: "measure", summary: "tell how much space a new image would need", load: async () => (await import("./measure.ts")).measure },
  { name: "dd", summary: "copy blocks of an image, with dd's operands", load: async () => (await import("./dd.ts")).dd },
  { name: "bench", summary: "time reads or writes of an image", load: async () => (await import("./bench.ts")).bench },
  { name: "snapshot", summary: "list the internal snapshots of an image", load: async () => (await import("./snapshot.ts")).snapshot },
  { name: "serve", qemu: "none", summary: "serve an image to NBD clients", load: async () => (await import("./serve.ts")).serve },
  { name: "io", qemu: "qemu-io", summary: "read, write and poke at an image, with qemu-io's commands", load: async () => (await import("./io.ts")).io },
];
