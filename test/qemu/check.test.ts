import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { counts, ourCheck, qemuCheck, qemuIo } from "../support/qcow2.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

/** A healthy image: how qemu-img makes it, and what is done to it. */
interface Case { readonly name: string; readonly options?: string; readonly size?: string; readonly fill?: (path: string) => void }

const write = (path: string): void => { qemuIo(path, "write -P 1 0 300k", "write -P 2 1M 64k", "write -P 3 700k 33k", "write -z 2M 512k", "discard 64k 64k", "write -P 4 9M 1M"); };
const compress = (path: string): void => { qemuIo(path, "write -c -P 5 4M 2M", "write -c -P 6 6M 2M", "write -P 7 5M 10k"); };
const snapshots = (path: string): void => {
  for (const name of ["one", "two", "three"]) {
    runTool("qemu-img", ["snapshot", "-c", name, path]);
    qemuIo(path, "write -P 8 100k 200k", `write -P 9 ${name.length}M 70k`);
  }
  runTool("qemu-img", ["snapshot", "-d", "two", path]);
};
const bitmaps = (path: string): void => {
  runTool("qemu-img", ["bitmap", "--add", path, "first"]);
  runTool("qemu-img", ["bitmap", "--add", "-g", "1M", path, "second"]);
  qemuIo(path, "write -P 3 3M 2M");
  runTool("qemu-img", ["bitmap", "--add", "--disable", path, "third"]);
};
const all = (path: string): void => { write(path); compress(path); snapshots(path); };

const CASES: Case[] = [
  { name: "empty" }, { name: "no size", size: "0" }, { name: "not a multiple of a cluster", size: "12000256", fill: write },
  { name: "compat 0.10", options: "compat=0.10", fill: all }, { name: "compat 1.1", fill: all },
  ...[512, 1024, 4096, 32768, 262144, 2097152].map((size) => ({ name: `clusters of ${size}`, options: `cluster_size=${size}`, fill: all })),
  ...[2, 4, 8, 16, 32, 64].map((bits) => ({ name: `refcounts of ${bits} bits`, options: `refcount_bits=${bits}`, fill: bits === 2 ? write : bits === 4 ? (path: string): void => { write(path); snapshots(path); } : all })),
  { name: "refcounts of 1 bit", options: "refcount_bits=1", fill: (path) => { write(path); compress(path); } },
  { name: "1 bit in small clusters", options: "refcount_bits=1,cluster_size=512", fill: write }, { name: "64 bits in small clusters", options: "refcount_bits=64,cluster_size=512", fill: all },
  { name: "zstd", options: "compression_type=zstd", fill: all }, { name: "bitmaps", fill: bitmaps }, { name: "bitmaps and all", options: "cluster_size=4096", fill: (path) => { all(path); bitmaps(path); } },
  ...["metadata", "falloc", "full"].map((how) => ({ name: `preallocation ${how}`, options: `preallocation=${how}`, fill: write })),
  { name: "lazy refcounts", options: "lazy_refcounts=on", fill: all },
  { name: "extended L2", options: "extended_l2=on", fill: all }, { name: "extended L2 in large clusters", options: "extended_l2=on,cluster_size=2M", fill: write },
  { name: "large and sparse", size: "8T", fill: (path) => { qemuIo(path, "write 0 1M", "write 3T 1M", "write 7T 100k"); } },
];

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("qcow2 check of healthy images", () => {
  const folder = tempFolder();
  test.each(CASES)("$name", async ({ name, options, size = "16M", fill }) => {
    const path = join(folder, `${name.replaceAll(" ", "-")}.qcow2`);
    runTool("qemu-img", ["create", "-f", "qcow2", ...(options === undefined ? [] : ["-o", options]), path, size]);
    fill?.(path);
    const ours = await ourCheck(path);
    expect(ours.findings).toEqual([]);
    expect(counts(ours)).toEqual(qemuCheck(path));
    // Neither repair has anything to do.
    const before = runTool("sha256sum", [path]);
    await ourCheck(path, "leaks");
    expect(counts(await ourCheck(path, "all"))).toEqual(counts(ours));
    expect(runTool("sha256sum", [path])).toBe(before);
  });

  test("an external data file has no refcounts", async () => {
    const path = join(folder, "external.qcow2");
    runTool("qemu-img", ["create", "-f", "qcow2", "-o", `data_file=${path}.data`, path, "16M"]);
    write(path);
    const ours = await ourCheck(path);
    expect(ours.findings).toEqual([]);
    expect(counts(ours)).toEqual(qemuCheck(path));
  });

  test("a backing file", async () => {
    const path = join(folder, "overlay.qcow2"), base = join(folder, "base.qcow2");
    runTool("qemu-img", ["create", "-f", "qcow2", base, "16M"]);
    runTool("qemu-img", ["create", "-f", "qcow2", "-b", base, "-F", "qcow2", path, "32M"]);
    all(path);
    expect(counts(await ourCheck(path))).toEqual(qemuCheck(path));
  });

  test("a LUKS header is counted", async () => {
    const path = join(folder, "luks.qcow2"), secret = ["--object", "secret,id=s,data=abc"];
    const made = tryTool("qemu-img", ["create", ...secret, "-f", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", path, "16M"]);
    expect(made).toMatchObject({ status: 0 });
    const options = `driver=qcow2,file.filename=${path},encrypt.key-secret=s`;
    expect(counts(await ourCheck(path))).toEqual(qemuCheck(options, undefined, [...secret, "--image-opts"]));
  });
});
