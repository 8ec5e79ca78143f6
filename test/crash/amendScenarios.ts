import type { Disk } from "../../disk/disk.ts";
import { qcow2Amendment } from "../../disk/formats/qcow2/amend.ts";
import type { CreateValues } from "../../disk/formats/creation.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { Random } from "../support/generator.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";
import { made, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, SIZE = 96 * KIB;
const base = new Random(9).bytes(70 * KIB);

/** Data, zero clusters with and without space. */
function fill(disk: Disk): void {
  void disk.write(0, new Uint8Array(20 * KIB).fill(7));
  void disk.zero(2 * KIB, 5 * KIB, true);
  void disk.zero(10 * KIB, 5 * KIB);
  void disk.zero(40 * KIB, 4 * KIB);
}

/** After a cut the disk reads as before, and the image can be opened; once it was amended, it is what was wanted. */
function amended(name: string, options: { clusterSize: number; version?: 2 | 3; backingFile?: string }, values: CreateValues, wanted: (header: DataView) => boolean): Scenario {
  const backing = options.backingFile === undefined ? undefined : base;
  const image = made({ ...options, size: SIZE, ...(backing === undefined ? {} : { backingFormat: "raw" }) }, fill, backing);
  return taskScenario(name, () => image.bytes, (file) => qcow2Amendment.apply(file, values), (bytes, ended) => {
    const { corruptions } = inspectQcow2(bytes);
    if (corruptions.length > 0) return `corrupt: ${corruptions[0]}`;
    if (ended && !wanted(new DataView(bytes.buffer, bytes.byteOffset))) return "not amended";
    const disk = openNow(new MemoryStorage(bytes.slice()), backing), contents = new Uint8Array(disk.size);
    void disk.read(0, contents);
    return Buffer.compare(contents, image.contents) === 0 ? undefined : "the disk reads otherwise";
  });
}

const isVersion = (version: number) => (header: DataView): boolean => header.getUint32(4) === version;
const hasOrder = (order: number) => (header: DataView): boolean => header.getUint32(96) === order;

export const AMENDED: readonly Scenario[] = [
  ...[512, 4096].flatMap((clusterSize) => [
    amended(`wider refcounts, clusters of ${clusterSize}`, { clusterSize }, { refcount_bits: 64 }, hasOrder(6)),
    amended(`narrower refcounts, clusters of ${clusterSize}`, { clusterSize }, { refcount_bits: 1 }, hasOrder(0)),
    amended(`down to version 2, clusters of ${clusterSize}`, { clusterSize }, { compat: "0.10" }, isVersion(2)),
    amended(`down to version 2 above a backing file, clusters of ${clusterSize}`, { clusterSize, backingFile: "base" }, { compat: "0.10" }, isVersion(2)),
    amended(`up to version 3 and other refcounts above a backing file, clusters of ${clusterSize}`, { clusterSize, version: 2, backingFile: "base" }, { compat: "1.1", refcount_bits: 8 }, hasOrder(3)),
  ]),
  amended("down to version 2, with a long name of the backing file", { clusterSize: 4096, backingFile: "b".repeat(700) }, { compat: "v2" }, isVersion(2)),
];
