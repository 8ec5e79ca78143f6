import type { Guest } from "../guest.ts";

/** A Debian to work in: apt, bash, nano, Python, and the tools that put a disk to the test. */
export const debian: Guest = {
  name: "debian",
  title: "Debian 12",
  description: "A small Debian with bash, apt, nano, Python 3 and e2fsprogs: a shell in about four seconds.",
  image: "debian.qcow2",
  files: ["debian.qcow2", "debian.packages"],
  memoryMiB: { minimum: 96, default: 128 },
  prompt: "debian# ",
  shell: true,
  says: ["GUEST-READY"],
  buildSeconds: 30,
  bootSeconds: { ide: 4, virtio: 3.3 },
};
