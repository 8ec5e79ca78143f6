import { dirname, join } from "node:path";
import { Disk } from "../../disk/disk.ts";
import type { CreateValues } from "../../disk/formats/creation.ts";
import { createCow } from "../../disk/formats/cow/create.ts";
import { createParallels, type ParallelsCreateOptions } from "../../disk/formats/parallels/create.ts";
import { createQcow, type QcowCreateOptions } from "../../disk/formats/qcow1/create.ts";
import { createQcow2, type Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import { qcow2Creation } from "../../disk/formats/qcow2/creation.ts";
import { createQed, type QedCreateOptions } from "../../disk/formats/qed/create.ts";
import { createVmdk, type VmdkCreateOptions } from "../../disk/formats/vmdk/create.ts";
import { createVdi, type VdiCreateOptions } from "../../disk/formats/vdi/create.ts";
import { createVhdx, type VhdxCreateOptions } from "../../disk/formats/vhdx/create.ts";
import { createVpc, type VpcCreateOptions } from "../../disk/formats/vpc/create.ts";
import type { Gate } from "../../disk/gate.ts";
import { open } from "../../disk/open.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { cowContents } from "../support/cow-inspect.ts";
import { MemoryFiles } from "../support/memory-files.ts";
import { qedContents } from "../support/qed-inspect.ts";
import { buildHosted, buildCowd, descriptorText } from "../support/vmdk-build.ts";
import { differencing, fixedVpc, vpcContents } from "../support/vpc-inspect.ts";

/** One row of the conformance suite: a format with options that change how it works. */
export interface Row {
  readonly name: string;
  readonly format: string;
  /** The image keeps a backing file's name. */
  readonly backs: boolean;
  /** Its disk can change its size; one that cannot refuses. */
  readonly resizes: boolean;
  /** QEMU's tools read it, with these options. */
  readonly judged: boolean;
  /** Where they do not: what this reads of the file and its base is the verdict instead. */
  readonly judge?: (file: Uint8Array, base: Uint8Array) => Uint8Array;
  /** A base of these contents, in the one format that this one can stand on; absent: a raw one. */
  readonly asBase?: (contents: Uint8Array) => Uint8Array;
  /** Makes an empty image of `size` bytes in `storage`, with its further files, if it has some, in `files`. */
  create(storage: Storage, size: number, backing: { file: string; format: string } | undefined, files: MemoryFiles): void | Promise<void>;
}

function qcow2(name: string, options: Partial<Qcow2CreateOptions>): Row {
  return {
    name: `qcow2 ${name}`, format: "qcow2", backs: true, resizes: true, judged: true,
    create: (storage, size, backing) => run(createQcow2(storage, { ...options, size, backingFile: backing?.file, backingFormat: backing?.format })),
  };
}

/** Made as the command line does, with these options. */
function qcow2Made(name: string, backs: boolean, values: CreateValues): Row {
  const defaults = { cluster_size: 65536, refcount_bits: 16, compression_type: "zlib" };
  return {
    name: `qcow2 ${name}`, format: "qcow2", backs, resizes: true, judged: true,
    create: (storage, size, backing, files) => {
      // QEMU seeks a relative data file from the current folder.
      const external = values["data_file"] === undefined ? {} : { data_file: join(dirname(storage.name), String(values["data_file"])) };
      return run(qcow2Creation.plan({ ...defaults, ...values, ...external, size, ...(backing && { backing_file: backing.file, backing_fmt: backing.format }) })(storage, files));
    },
  };
}

function vdi(name: string, judged: boolean, options: Partial<VdiCreateOptions>): Row {
  return { name: `vdi ${name}`, format: "vdi", backs: false, resizes: false, judged, create: (storage, size) => run(createVdi(storage, { ...options, size })) };
}

function qed(name: string, options: Partial<QedCreateOptions>): Row {
  return {
    name: `qed ${name}`, format: "qed", backs: true, resizes: true, judged: true,
    create: (storage, size, backing) => run(createQed(storage, { ...options, size, backingFile: backing?.file, backingFormat: backing?.format })),
  };
}

function qcow(name: string, options: Partial<QcowCreateOptions>): Row {
  return {
    name: `qcow ${name}`, format: "qcow", backs: true, resizes: false, judged: true,
    create: (storage, size, backing) => run(createQcow(storage, { ...options, size, backingFile: backing?.file })),
  };
}

function parallels(name: string, options: Partial<ParallelsCreateOptions>): Row {
  return { name: `parallels ${name}`, format: "parallels", backs: false, resizes: false, judged: true, create: (storage, size) => run(createParallels(storage, { ...options, size })) };
}

function vpc(name: string, options: Partial<VpcCreateOptions>): Row {
  return { name: `vpc ${name}`, format: "vpc", backs: false, resizes: false, judged: true, create: (storage, size) => run(createVpc(storage, { forceSize: true, ...options, size })) };
}

function vhdx(name: string, options: Partial<VhdxCreateOptions>): Row {
  return { name: `vhdx ${name}`, format: "vhdx", backs: false, resizes: false, judged: true, create: (storage, size) => run(createVhdx(storage, { ...options, size })) };
}

/** Nothing makes these but the specification. */
const DIFFERENCING: Row = {
  name: "vpc differencing", format: "vpc", backs: true, resizes: false, judged: false, judge: vpcContents, asBase: fixedVpc,
  create(storage, size, backing) {
    const file = new MemoryStorage();
    void run(createVpc(file, { forceSize: true, size, blockSize: 64 * 1024 }));
    if (backing !== undefined) differencing(file, backing.file);
    return storage.write(0, file.bytes);
  },
};

function vmdk(name: string, options: Partial<VmdkCreateOptions>): Row {
  return {
    name: `vmdk ${name}`, format: "vmdk", backs: options.subformat?.endsWith("Flat") !== true, resizes: false, judged: true, asBase: vmdkOf,
    create: (storage, size, backing, files) => run(createVmdk(storage, { ...options, size, backingFile: backing?.file }, files)),
  };
}

/** The parent of a VMDK is one, too. */
function vmdkOf(contents: Uint8Array): Uint8Array {
  const file = new MemoryStorage();
  void run(createVmdk(file, { size: contents.length }, new MemoryFiles("base")));
  const disk = open(file, { format: "vmdk" });
  if (disk instanceof Promise || disk.write(0, contents) || disk.close()) throw new Error("expected a synchronous disk");
  return file.bytes.slice();
}

/** Extents that only VMware makes: sparse, flat, sparse, with small grains, grain tables made when they are needed, and the first one's last table half used. */
function createSplit(storage: Storage, size: number, files: MemoryFiles): void {
  const names = ["split-0.vmdk", "split-1.vmdk", "split-2.vmdk"], sectors = [1040, 512, size / 512 - 1552];
  const lines = sectors.map((count, i) => {
    const extent = i === 1 ? new Uint8Array(count * 512) : buildHosted({ sectors: count, grain: 8, perTable: 32, sparseTables: true });
    void files.create(names[i] ?? "").write(0, extent);
    return i === 1 ? `RW ${count} FLAT "${names[i]}" 0` : `RW ${count} SPARSE "${names[i]}"`;
  });
  void storage.write(0, Buffer.from(descriptorText("custom", lines, { newline: "\r\n" })));
}

export const ROWS: readonly Row[] = [
  { name: "raw", format: "raw", backs: false, resizes: true, judged: true, create: (storage, size) => storage.truncate(size) },
  qcow2("defaults", {}),
  qcow2("version 2", { version: 2 }),
  qcow2("512-byte clusters", { clusterSize: 512 }),
  qcow2("512-byte clusters, 64-bit refcounts", { clusterSize: 512, refcountBits: 64 }),
  qcow2("4 KiB clusters, 1-bit refcounts", { clusterSize: 4096, refcountBits: 1 }),
  qcow2("2 MiB clusters, 8-bit refcounts", { clusterSize: 2 ** 21, refcountBits: 8 }),
  qcow2("zstd, 32-bit refcounts", { compressionType: "zstd", refcountBits: 32 }),
  qcow("defaults", {}),
  qcow("512-byte clusters, smallest tables", { clusterBits: 9, l2Bits: 6 }),
  qcow("64 KiB clusters, largest tables", { clusterBits: 16, l2Bits: 13 }),
  qcow2Made("external data file", true, { data_file: "data.raw" }),
  qcow2Made("external data file, 4 KiB clusters", true, { data_file: "data.raw", cluster_size: 4096 }),
  qcow2Made("external data file, extended L2", true, { data_file: "data.raw", extended_l2: true }),
  qcow2Made("raw external data file", false, { data_file: "data.raw", data_file_raw: true }),
  qcow2Made("raw external data file, extended L2, 16 KiB clusters", false, { data_file: "data.raw", data_file_raw: true, extended_l2: true, cluster_size: 16384 }),
  qcow2Made("preallocated metadata", false, { preallocation: "metadata" }),
  qcow2Made("preallocated metadata, extended L2", true, { preallocation: "metadata", extended_l2: true }),
  qcow2Made("preallocated in full, 4 KiB clusters", false, { preallocation: "full", cluster_size: 4096 }),
  qcow2("lazy refcounts", { lazyRefcounts: true }),
  qcow2("extended L2, 16 KiB clusters", { extendedL2: true, clusterSize: 2 ** 14 }),
  qcow2("extended L2, 64 KiB clusters", { extendedL2: true }),
  qcow2("extended L2, 2 MiB clusters, zstd", { extendedL2: true, clusterSize: 2 ** 21, compressionType: "zstd" }),
  qed("defaults", {}),
  qed("4 KiB clusters, tables of two", { clusterSize: 4096, tableSize: 2 }),
  { ...qed("4 KiB clusters, tables of one", { clusterSize: 4096, tableSize: 1 }), judged: false, judge: qedContents },
  qed("1 MiB clusters, tables of 16", { clusterSize: 2 ** 20, tableSize: 16 }),
  {
    name: "cow", format: "cow", backs: true, resizes: false, judged: false, judge: cowContents,
    create: (storage, size, backing) => run(createCow(storage, { size, backingFile: backing?.file })),
  },
  vdi("dynamic", true, {}),
  vdi("fixed", true, { fixed: true }),
  vdi("4 KiB blocks", false, { blockSize: 4096 }),
  vpc("dynamic", {}),
  vpc("dynamic, 4 KiB blocks", { blockSize: 4096 }),
  vpc("fixed", { fixed: true }),
  DIFFERENCING,
  vhdx("defaults", {}),
  vhdx("1 MiB blocks, not present", { blockSize: 2 ** 20, stateZero: false }),
  vhdx("fixed, 2 MiB blocks", { blockSize: 2 ** 21, fixed: true }),
  vmdk("monolithicSparse", {}),
  vmdk("monolithicSparse, zeroed_grain", { zeroedGrain: true }),
  vmdk("streamOptimized", { subformat: "streamOptimized" }),
  vmdk("streamOptimized, zeroed_grain", { subformat: "streamOptimized", zeroedGrain: true }),
  vmdk("monolithicFlat", { subformat: "monolithicFlat" }),
  vmdk("twoGbMaxExtentSparse", { subformat: "twoGbMaxExtentSparse" }),
  { ...vmdk("COWD", {}), backs: false, judged: false, create: (storage, size) => storage.write(0, buildCowd({ sectors: size / 512, grain: 1 })) },
  { ...vmdk("three extents", {}), backs: false, judged: false, create: (storage, size, _backing, files) => { createSplit(storage, size, files); } },
  parallels("defaults", {}),
  parallels("4 KiB clusters", { clusterSize: 4096 }),
  parallels("of the old form, 63 sectors a cluster", { clusterSize: 63 * 512, old: true }),
];

/** Opens the image in `storage`, its backing file through `gate`. */
export async function openRow(row: Row, storage: Storage, gate?: Gate): Promise<Disk> {
  return open(storage, { format: row.format, gate, tableCache: 64 * 1024 });
}
