import { lookUp } from "../../chain.ts";
import type { InfoObject } from "../../formats/info.ts";
import { formatNamed } from "../../formats/registry.ts";
import type { Image } from "../../image.ts";
import { run, type Task } from "../../task.ts";
import { listing } from "../lines.ts";
import { integer } from "../sizes.ts";
import type { Command } from "./command.ts";
import { amount, bytesArgument } from "./numbers.ts";

const SECTOR = 512;

/** Whether the image itself, and not one that it stands on, answers for `offset`; and for how many bytes of `length` that holds. */
function* allocation(image: Image, offset: number, length: number): Task<{ allocated: boolean; length: number }> {
  let done = 0, allocated = false;
  while (done < length) {
    const extent = yield* lookUp(image, offset + done, length - done), here = extent.kind !== "backing";
    if (done > 0 && here !== allocated) break;
    allocated = here;
    done += Math.min(extent.length, length - done);
  }
  return { allocated, length: done };
}

export const alloc: Command = {
  name: "alloc", alias: "a", args: "offset [count]", oneline: "checks if offset is allocated in the file", least: 1, most: 2,
  async run({ disk, output }, { words: [from = "", count] }) {
    const offset = bytesArgument(from), wanted = count === undefined ? SECTOR : bytesArgument(count), length = Math.max(0, Math.min(wanted, disk.size - offset));
    let sum = 0;
    for (let done = 0; done < length;) {
      const here = await run(allocation(disk.chain[0], offset + done, length - done));
      if (here.allocated) sum += here.length;
      done += here.length;
    }
    output.out(`${sum}/${integer(length)} bytes allocated at offset ${amount(offset)}\n`);
  },
};

export const map: Command = {
  name: "map", args: "", oneline: "prints the allocated areas of a file", least: 0, most: 0,
  async run({ disk, output }) {
    for (let at = 0; at < disk.size;) {
      const { allocated, length } = await run(allocation(disk.chain[0], at, disk.size - at));
      output.out(`${amount(length)} (0x${length.toString(16)}) bytes ${allocated ? "    allocated" : "not allocated"} at offset ${amount(at)} (0x${at.toString(16)})\n`);
      at += length;
    }
  },
};

export const length: Command = {
  name: "length", alias: "l", args: "", oneline: "gets the length of the current file", least: 0, most: 0,
  run({ disk, output }) {
    output.out(`${amount(disk.size)}\n`);
  },
};

/** Behind what the tables that the disk needs can reach: there QEMU keeps the VM state of a qcow2. */
function vmStateOffset(format: string, size: number, clusterSize: number, extended: boolean): number {
  const reach = clusterSize * (clusterSize / (extended ? 16 : 8));
  return format === "qcow2" ? Math.ceil(size / reach) * reach : 0;
}

export const info: Command = {
  name: "info", alias: "i", args: "", oneline: "prints information about the current file", least: 0, most: 0,
  async run({ disk, output }) {
    const [image] = disk.chain, { clusterSize = 0, specific } = await run(formatNamed(image.format).info(image.storage));
    const vmState = vmStateOffset(image.format, disk.size, clusterSize, (specific?.["data"] as InfoObject | undefined)?.["extended-l2"] === true);
    output.out(`format name: ${image.format}\ncluster size: ${amount(clusterSize)}\nvm state offset: ${amount(vmState)}\n`);
    if (specific !== undefined) output.out(`Format specific information:\n${listing(specific["data"] ?? specific, 1)}`);
  },
};
