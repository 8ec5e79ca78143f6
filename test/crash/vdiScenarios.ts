import { createVdi } from "../../disk/formats/vdi/create.ts";
import { brokenVdi } from "../support/vdi-inspect.ts";
import { creation, filled, KIB, scattered } from "./blockScenarios.ts";
import { guestScenario, type Scenario } from "./scenario.ts";

const made = (size: number, fixed: boolean, fill: number) => filled("vdi", (file) => createVdi(file, { size, fixed, blockSize: 512 }), size, fill);
const isVdi = (bytes: Uint8Array): boolean => bytes.length >= 512 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0x40, true) === 0xbeda107f;

export const VDI: readonly Scenario[] = [
  guestScenario({ name: "a dynamic VDI", format: "vdi", image: () => made(96 * KIB, false, 5 * KIB), work: scattered }),
  guestScenario({ name: "a fixed VDI", format: "vdi", image: () => made(96 * KIB, true, 5 * KIB), work: scattered }),
  guestScenario({
    name: "a VDI whose map does not fit the cache", format: "vdi", image: () => made(8192 * KIB, false, 0), options: { tableCache: 1 },
    work: (guest) => {
      for (let i = 0; i < 5; i++) void guest.fill(((i * 3) % 16) * 512 * KIB + 100, 900, i + 1);
      void guest.flush();
    },
  }),
  ...[false, true].map((fixed) => creation(`a new ${fixed ? "fixed" : "dynamic"} VDI`, "vdi", 300 * KIB, (file) => createVdi(file, { size: 300 * KIB, fixed, blockSize: 512 }), isVdi, brokenVdi)),
];
