import { createVpc } from "../../disk/formats/vpc/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { brokenVpc, differencing, fixedVpc } from "../support/vpc-inspect.ts";
import { creation, filled, KIB, scattered } from "./blockScenarios.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";

const isVhd = (bytes: Uint8Array): boolean => [0, bytes.length - 512].some((at) => at >= 0 && String.fromCharCode(...bytes.subarray(at, at + 8)) === "conectix");
const sound = (bytes: Uint8Array): string | undefined => (bytes[0] === 0x63 ? brokenVpc(bytes) : undefined);
const create = (size: number, fixed: boolean) => (file: Storage) => createVpc(file, { size, fixed, forceSize: true, blockSize: 512 });
const made = (fixed: boolean) => filled("vpc", create(96 * KIB, fixed), 96 * KIB, 5 * KIB);

/** Above a parent, with a block that is this image's only in part. */
function above(parent: Uint8Array): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage(), size = 96 * KIB, contents = parent.slice(0, size);
  void run(createVpc(file, { size, forceSize: true, blockSize: 2048 }));
  differencing(file, "base");
  const disk = openNow(file, parent, { format: "vpc" });
  contents.set(new Random(3).bytes(2048), 0);
  void disk.write(0, contents.subarray(0, 2048));
  void disk.close();
  const at = new DataView(file.bytes.buffer, file.bytes.byteOffset).getUint32(1536) * 512;
  file.bytes[at] = 0xa0;
  for (const sector of [1, 3]) contents.set(parent.subarray(sector * 512, sector * 512 + 512), sector * 512);
  return { bytes: file.bytes.slice(), contents };
}

const PARENT = fixedVpc(new Random(8).bytes(96 * KIB));

export const VPC: readonly Scenario[] = [
  guestScenario({ name: "a dynamic VHD", format: "vpc", image: () => made(false), work: scattered }),
  guestScenario({ name: "a fixed VHD", format: "vpc", image: () => made(true), work: scattered }),
  guestScenario({ name: "a differencing VHD", format: "vpc", backing: PARENT, image: () => above(PARENT), work: scattered }),
  ...[false, true].map((fixed) => creation(`a new ${fixed ? "fixed" : "dynamic"} VHD`, "vpc", 300 * KIB, create(300 * KIB, fixed), isVhd, sound)),
];
