import type { Guest } from "../guest.ts";

/** Linux and busybox: the smallest system that is still a system. For demonstrations and for most tests. */
export const tiny: Guest = {
  name: "tiny",
  title: "Tiny Linux",
  description: "Debian's kernel and busybox: a shell in about four seconds, an image of 11 MB.",
  image: "tiny.qcow2",
  files: ["tiny.qcow2", "tiny.packages"],
  memoryMiB: { minimum: 96, default: 128 },
  prompt: "tiny# ",
  shell: true,
  says: ["GUEST-READY"],
  buildSeconds: 15,
  bootSeconds: { ide: 4, virtio: 3 },
};
