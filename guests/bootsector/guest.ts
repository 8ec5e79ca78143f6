import type { Guest } from "../guest.ts";

/** 512 bytes that write, read and sum up blocks through the BIOS: a controller's whole path in a fifth of a second. */
export const bootsector: Guest = {
  name: "bootsector",
  title: "Boot sector",
  description: "One sector of code that writes and reads the disk through the BIOS and prints a checksum.",
  image: "bootsector.qcow2",
  files: ["bootsector.qcow2", "bootsector.bin"],
  memoryMiB: { minimum: 16, default: 16 },
  prompt: "DONE",
  shell: false,
  says: ["BOOT", "SUM dbc89357"],
  buildSeconds: 2,
  bootSeconds: { ide: 0.2, virtio: 0.2 },
};
