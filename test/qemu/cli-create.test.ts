import { existsSync, linkSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const MADE = ["x.qcow2", "x.raw", "a,b.qcow2", "sub/x.qcow2", "x.vdi", "x.parallels", "x.qcow", "x.vpc", "x.vmdk", "x.vhdx"];

/** Command lines for `create`; each makes one of MADE, or fails. `''` is an empty argument. */
const LINES = [
  // Sizes
  "-f qcow2 x.qcow2 1G", "-f qcow2 x.qcow2 1.5G", "-f qcow2 x.qcow2 1000", "-f qcow2 x.qcow2 0", "-f qcow2 x.qcow2 0x1000", "-f qcow2 x.qcow2 1.3k", "-f qcow2 x.qcow2 1.3", "-f qcow2 x.qcow2 10b",
  "-f qcow2 x.qcow2 10B", "-f qcow2 x.qcow2 10MB", "-f qcow2 x.qcow2 +5", "-f qcow2 x.qcow2 .5M", "-f qcow2 x.qcow2 5.M", "-f qcow2 x.qcow2 1e3", "-f qcow2 x.qcow2 ''", "-f qcow2 x.qcow2 1Q", "-f qcow2 x.qcow2 -- -1",
  "-f qcow2 x.qcow2 2T", "-f qcow2 x.qcow2 2P", "-f qcow2 x.qcow2 7E", "-f qcow2 x.qcow2 8E", "-f qcow2 x.qcow2 16E", "-f qcow2 x.qcow2", "x.raw 10M", "x.raw 1000", "x.raw 0", "-f raw x.raw 1k", "x.raw",
  // Options
  "-f qcow2 -o compat=0.10 x.qcow2 1M", "-f qcow2 -o compat=1.1 x.qcow2 1M", "-f qcow2 -o compat=v2,cluster_size=4k x.qcow2 1M", "-f qcow2 -o compat=v3 x.qcow2 1M", "-f qcow2 -o compat=foo x.qcow2 1M",
  "-f qcow2 -o cluster_size=512 x.qcow2 1M", "-f qcow2 -o cluster_size=0.5k x.qcow2 1M", "-f qcow2 -o cluster_size=2M x.qcow2 10G", "-f qcow2 -o cluster_size=4M x.qcow2 1M", "-f qcow2 -o cluster_size=3k x.qcow2 1M", "-f qcow2 -o cluster_size=zz x.qcow2 1M",
  "-f qcow2 -o cluster_size=512 x.qcow2 1T", "-f qcow2 -o cluster_size=65536,cluster_size=4096 x.qcow2 1M", "-f qcow2 -o cluster_size=4k -o refcount_bits=1 x.qcow2 1M", "-f qcow2 -o refcount_bits=64 x.qcow2 1M", "-f qcow2 -o refcount_bits=3 x.qcow2 1M",
  "-f qcow2 -o refcount_bits=128 x.qcow2 1M", "-f qcow2 -o refcount_bits=abc x.qcow2 1M", "-f qcow2 -o compat=0.10,refcount_bits=8 x.qcow2 1M", "-f qcow2 -o lazy_refcounts=on x.qcow2 1M", "-f qcow2 -o lazy_refcounts x.qcow2 1M", "-f qcow2 -o nolazy_refcounts x.qcow2 1M",
  "-f qcow2 -o lazy_refcounts=yes x.qcow2 1M", "-f qcow2 -o lazy_refcounts=maybe x.qcow2 1M", "-f qcow2 -o compat=0.10,lazy_refcounts=on x.qcow2 1M", "-f qcow2 -o compression_type=zstd x.qcow2 1M", "-f qcow2 -o compression_type=lz4 x.qcow2 1M",
  "-f qcow2 -o compat=v2,compression_type=zstd x.qcow2 1M", "-f qcow2 -o preallocation=off,extended_l2=off x.qcow2 1M", "-f qcow2 -o preallocation=foo x.qcow2 1M",
  ...["off", "metadata", "falloc", "full"].flatMap((mode) => [`-f qcow2 -o preallocation=${mode} x.qcow2 3M`, `-f qcow2 -o preallocation=${mode},cluster_size=4k,extended_l2=off x.qcow2 3000k`, `-f qcow2 -o preallocation=${mode},extended_l2=on -b base.qcow2 -F qcow2 x.qcow2`, `-f raw -o preallocation=${mode} x.raw 3M`, `-o preallocation=${mode},size=1M x.raw`]),
  "-f qcow2 -o preallocation=metadata,compat=0.10 x.qcow2 3M", "-f qcow2 -o preallocation=metadata x.qcow2 300G", "-f qcow2 -o preallocation=metadata -b base.qcow2 -F qcow2 x.qcow2", "-f qcow2 -o preallocation=falloc x.qcow2 0", "-f raw -o preallocation=foo x.raw 1M",
  "-f qcow2 -o nocow=on x.qcow2 1M", "-f qcow2 -o nocow x.qcow2 1M", "-f qcow2 -o nocow=maybe x.qcow2 1M", "-f raw -o nocow=on,preallocation=full x.raw 1M", "-o preallocation=falloc,nocow=off,extent_size_hint=1M x.raw 1M", "-f vdi -o nocow=on x.vdi 1M", "-f qcow2 -o extent_size_hint=zz x.qcow2 1M",
  "-f qcow2 -o data_file=d.raw x.qcow2 3M", "-f qcow2 -o data_file=d.raw,data_file_raw=on x.qcow2 3000k", "-f qcow2 -o data_file=d.raw,data_file_raw=off,extended_l2=on x.qcow2 3M", "-f qcow2 -o data_file=d.raw,preallocation=metadata x.qcow2 3M", "-f qcow2 -o data_file=d.raw,data_file_raw=on,preallocation=full x.qcow2 3M",
  "-f qcow2 -o data_file=d.raw -b base.qcow2 -F qcow2 x.qcow2", "-f qcow2 -o data_file=d.raw,data_file_raw=on -b base.qcow2 -F qcow2 x.qcow2", "-f qcow2 -o data_file=d.raw,compat=0.10 x.qcow2 1M", "-f qcow2 -o data_file=x.qcow2 x.qcow2 1M", "-f qcow2 -o data_file=no/where.raw x.qcow2 1M",
  "-f qcow2 -o extended_l2=on x.qcow2 1M", "-f qcow2 -o extended_l2=on,cluster_size=16k x.qcow2 10G", "-f qcow2 -o extended_l2=on,cluster_size=8k x.qcow2 1M", "-f qcow2 -o extended_l2=on,compat=0.10 x.qcow2 1M", "-f qcow2 -o extended_l2=on -b base.qcow2 -F qcow2 x.qcow2",
  "-f qcow2 -o data_file_raw=on x.qcow2 1M", "-f qcow2 -o size=3M x.qcow2", "-f qcow2 -o size=3M x.qcow2 5M",
  "-f qcow2 -o size=1Q x.qcow2", "-f qcow2 -o nosize x.qcow2", "-f qcow2 -o bar=1 x.qcow2 1M", "-f qcow2 -o =5 x.qcow2 1M", "-f qcow2 -o , x.qcow2 1M", "-f raw -o cluster_size=1 x.raw 1M", "-f qcow2 -q x.qcow2 1M", "-q x.raw 1M",
  // Backing files
  "-f qcow2 -b base.qcow2 -F qcow2 x.qcow2", "-f qcow2 -b base.qcow2 -F qcow2 x.qcow2 5M", "-f qcow2 -b base.qcow2 x.qcow2", "-f qcow2 -b base.raw -F raw x.qcow2", "-f qcow2 -b gone.qcow2 -F qcow2 x.qcow2", "-f qcow2 -b gone.qcow2 -F qcow2 x.qcow2 1M",
  "-f qcow2 -u -b gone.qcow2 -F qcow2 x.qcow2 1M", "-f qcow2 -u -b gone.qcow2 -F qcow2 x.qcow2", "-f qcow2 -u -b gone.qcow2 x.qcow2 1M", "-f qcow2 -b base.raw -F qcow2 x.qcow2", "-f qcow2 -b base.qcow2 -F foo x.qcow2", "-f qcow2 -b x.qcow2 -F qcow2 x.qcow2",
  "-f qcow2 -b '' -F qcow2 x.qcow2 1M", "-f qcow2 -F qcow2 x.qcow2 1M", "-f raw -b base.qcow2 x.raw 1M", "-f raw -F qcow2 x.raw 1M", "-f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 x.qcow2", "-f qcow2 -o backing_file=old.qcow2 -b base.qcow2 -F qcow2 x.qcow2",
  "-f qcow2 -o backing_file=with,,comma.qcow2,backing_fmt=qcow2 x.qcow2", "-f qcow2 -b with,comma.qcow2 -F qcow2 x.qcow2", "-f qcow2 -b ../base.qcow2 -F qcow2 sub/x.qcow2", "-f qcow2 -b base.qcow2 -F qcow2 sub/x.qcow2", "-f qcow2 -b top.qcow2 -F qcow2 x.qcow2",
  "-f qcow2 -b broken.qcow2 -F qcow2 x.qcow2", "-f qcow2 -b file:base.qcow2 -F qcow2 x.qcow2",
  // Other formats
  "-f vdi x.vdi 3M", "-f vdi x.vdi 1000", "-f vdi x.vdi 0", "-f vdi x.vdi 3000M", "-f vdi -o static=on x.vdi 3M", "-f vdi -o static x.vdi 1500k", "-f vdi -o static=off,size=5M x.vdi", "-f vdi x.vdi 2T",
  "-f vdi -o static=maybe x.vdi 1M", "-f vdi -o cluster_size=1M x.vdi 1M", "-f vdi -b base.qcow2 -F qcow2 x.vdi", "-f vdi x.vdi",
  "-f parallels x.parallels 3M", "-f parallels x.parallels 1000", "-f parallels x.parallels 0", "-f parallels x.parallels 2T", "-f parallels -o cluster_size=64k x.parallels 3M", "-f parallels -o cluster_size=1000 x.parallels 3M", "-f parallels -o cluster_size=63k,size=5M x.parallels",
  "-f parallels -b base.qcow2 -F qcow2 x.parallels", "-f parallels x.parallels",
  "-f qcow x.qcow 3M", "-f qcow x.qcow 1000", "-f qcow x.qcow 1", "-f qcow x.qcow 100G", "-f qcow -o size=5M,encryption=off x.qcow", "-f qcow -o cluster_size=4k x.qcow 1M", "-f qcow -o encryption=maybe x.qcow 1M",
  "-f qcow -b base.qcow2 -F qcow2 x.qcow", "-f qcow -b base.raw -F raw x.qcow 5M", "-f qcow -b base.raw x.qcow", "-f qcow -u -b gone.qcow2 x.qcow 1M", "-f qcow -F qcow2 x.qcow 1M", "-f qcow x.qcow",
  "-f vpc x.vpc 3M", "-f vpc x.vpc 1000", "-f vpc x.vpc 0", "-f vpc x.vpc 127G", "-f vpc x.vpc 2040G", "-f vpc x.vpc 2041G", "-f vpc -o subformat=fixed x.vpc 3M", "-f vpc -o force_size=on x.vpc 1000001", "-f vpc -o force_size,subformat=fixed x.vpc 5M",
  "-f vpc -o subformat=dynamic,size=5M x.vpc", "-f vpc -o subformat=sparse x.vpc 1M", "-f vpc -o force_size=maybe x.vpc 1M", "-f vpc -b base.qcow2 -F qcow2 x.vpc", "-f vpc x.vpc",
  "-f vmdk x.vmdk 3M", "-f vmdk x.vmdk 1000", "-f vmdk x.vmdk 5T", "-f vmdk -o adapter_type=lsilogic,hwversion=7,toolsversion=12 x.vmdk 3000M", "-f vmdk -o adapter_type=legacyESX,compat6 x.vmdk 1M", "-f vmdk -o adapter_type=scsi x.vmdk 1M",
  "-f vmdk -o subformat=monolithicFlat x.vmdk 3M", "-f vmdk -o subformat=twoGbMaxExtentSparse x.vmdk 5G", "-f vmdk -o subformat=twoGbMaxExtentFlat,adapter_type=buslogic x.vmdk 4G", "-f vmdk -o subformat=streamOptimized x.vmdk 3M", "-f vmdk -o subformat=thin x.vmdk 3M",
  "-f vmdk -o zeroed_grain=on x.vmdk 3M", "-f vmdk -o subformat=twoGbMaxExtentSparse,zeroed_grain=on x.vmdk 3M", "-f vmdk -o subformat=monolithicFlat,zeroed_grain=on x.vmdk 3M", "-f vmdk -o subformat=monolithicFlat,zeroed_grain=off x.vmdk 3M", "-f vmdk -o zeroed_grain=some x.vmdk 3M",
  "-f vmdk -b base.vmdk -F vmdk x.vmdk", "-f vmdk -b base.vmdk -F vmdk x.vmdk 5M", "-f vmdk -b base.vmdk x.vmdk", "-f vmdk -b split.vmdk -F vmdk x.vmdk", "-f vmdk -b base.vmdk -F vmdk -o subformat=twoGbMaxExtentSparse x.vmdk", "-f vmdk -b base.vmdk -F vmdk -o subformat=streamOptimized x.vmdk",
  "-f vmdk -b base.vmdk -F vmdk -o subformat=monolithicFlat x.vmdk", "-f vmdk -b base.qcow2 -F qcow2 x.vmdk", "-f vmdk -b base.qcow2 -F vmdk x.vmdk", "-f vmdk -b gone.vmdk -F vmdk x.vmdk 1M", "-f vmdk -u -b gone.vmdk -F vmdk x.vmdk 1M", "-f vmdk -u -b base.vmdk -F vmdk x.vmdk 1M",
  "-f vmdk -o compat6=on,hwversion=4 x.vmdk 1M", "-f vmdk -o hwversion=undefined x.vmdk 1M", "-f vmdk -o size=3M x.vmdk", "-f vmdk -o cluster_size=64k x.vmdk 1M", "-f vmdk x.vmdk",
  "-f vhdx x.vhdx 3M", "-f vhdx x.vhdx 1000", "-f vhdx x.vhdx 3G", "-f vhdx x.vhdx 64T", "-f vhdx x.vhdx 65T", "-f vhdx -o subformat=fixed x.vhdx 3M", "-f vhdx -o subformat=dynamic,size=5M,block_state_zero=off x.vhdx", "-f vhdx -o subformat=differencing x.vhdx 1M",
  "-f vhdx -o block_size=2M,log_size=3M x.vhdx 5M", "-f vhdx -o block_size=3M x.vhdx 5M", "-f vhdx -o block_size=1 x.vhdx 5M", "-f vhdx -o block_size=1G x.vhdx 5M", "-f vhdx -o log_size=0 x.vhdx 5M", "-f vhdx -o log_size=4G x.vhdx 5M", "-f vhdx -o log_size=1000000 x.vhdx 5M",
  "-f vhdx -o block_state_zero=maybe x.vhdx 1M", "-f vhdx -b base.qcow2 -F qcow2 x.vhdx", "-f vhdx x.vhdx",
  // Arguments
  "", "x.qcow2 1M extra", "-f", "-z", "--frob", "-f foo x.qcow2 1M", "-f qcow2 nowhere/x.qcow2 1M", "sub 1M", "-f qcow2 a,b.qcow2 1M", "-o", "-f qcow2 -o cluster_size", "x.raw 1M -f raw", "-fqcow2 x.qcow2 1M", "-qfqcow2 x.qcow2 1M",
];

const words = (line: string): string[] => line.split(" ").filter((word) => word !== "").map((word) => (word === "''" ? "" : word));

/** Which of the files there are now, and what qemu-img makes of them. They are removed. */
function harvest(): string[] {
  return MADE.filter((name) => existsSync(name)).map((name) => {
    const format = name.split(".").pop() ?? "", info = JSON.parse(runTool("qemu-img", ["info", "--output=json", "-f", format, name])) as Record<string, unknown>;
    // Without its backing file qemu-img would not check it; and of an empty Parallels image it takes the BAT for a leak.
    const checkable = format !== "raw" && format !== "parallels" && format !== "qcow" && format !== "vpc" && info["full-backing-filename"] !== "gone.qcow2";
    if (checkable) runTool("qemu-img", ["check", "-q", "-f", format, name]);
    const space = spaceOf(name, format, Number(info["virtual-size"]), info["full-backing-filename"] === undefined);
    for (const extent of readdirSync(".").filter((one) => /^x-.*\.vmdk$/.test(one))) rmSync(extent);
    rmSync(name);
    // A content ID is random.
    return `${name} ${JSON.stringify({ ...info, "actual-size": 0 }).replace(/"cid":\d+/, "")} ${space}`;
  });
}

/** Where a small qcow2 image has its data, in which pieces, with how many MiB on the device; and its data file, which QEMU rounds up to clusters. */
function spaceOf(name: string, format: string, size: number, whole: boolean): string {
  const mib = (file: string): number => Math.floor((statSync(file).blocks * 512) / 2 ** 20);
  // There QEMU writes all of the BAT's region, zeros too; as it does with a large L1, which takes it long to read as well.
  if (format === "vhdx" || format === "parallels" || size > 2 ** 50) return "";
  if (format !== "qcow2") return `takes ${mib(name)} MiB`;
  const pieces = whole && statSync(name).size < 2 ** 30 ? (JSON.parse(runTool("qemu-img", ["map", "--output=json", "-f", format, name])) as object[]).map((piece) => ({ ...piece, offset: 0 })) : [];
  const data = existsSync("d.raw") ? `; its data file has ${Math.ceil(statSync("d.raw").size / 65536)} clusters and takes ${mib("d.raw")} MiB` : "";
  rmSync("d.raw", { force: true });
  return `takes ${mib(name)} MiB in ${JSON.stringify(pieces)}${data}`;
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("create, as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    mkdirSync("sub");
    for (const name of ["base.qcow2", "with,comma.qcow2"]) runTool("qemu-img", ["create", "-q", "-f", "qcow2", name, "3M"]);
    runTool("qemu-img", ["create", "-q", "base.raw", "2M"]);
    runTool("qemu-img", ["create", "-q", "-f", "vmdk", "base.vmdk", "2M"]);
    runTool("qemu-img", ["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse", "split.vmdk", "2200M"]);
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2"]);
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-u", "-b", "gone.qcow2", "-F", "qcow2", "broken.qcow2", "1M"]);
  });
  afterAll(() => process.chdir(home));

  test.each(LINES)("%s", async (line) => {
    const args = ["create", ...words(line)];
    const wanted = qemuImg(...args), wantedFiles = wanted.status === 0 ? harvest() : [];
    // What qemu-img leaves behind after a failure is its own.
    for (const name of [...MADE, "d.raw"]) rmSync(name, { force: true });
    const ours = await disk86(...args), files = harvest();
    // What was printed before a failure is no promise.
    expect({ ...ours, stdout: ours.status === 0 ? ours.stdout : "", stderr: ours.stderr !== "" }).toEqual({ ...wanted, stdout: wanted.status === 0 ? wanted.stdout : "", stderr: wanted.stderr !== "" });
    expect(files).toEqual(wantedFiles);
    expect(readdirSync(".").filter((name) => name.endsWith(".new"))).toEqual([]);
  });

  test.each(["encryption=on", "encrypt.format=luks"])("-o %s without a password makes nothing", async (option) => {
    const { status, stderr } = await disk86("create", "-f", "qcow2", "-o", option, "x.qcow2", "1M");
    expect(status).toBe(1);
    expect(stderr).toContain("Parameter 'encrypt.key-secret' is required for cipher");
    expect(existsSync("x.qcow2")).toBe(false);
  });

  test.each(["qcow2", "vdi", "parallels", "qcow", "vpc", "vmdk", "vhdx"])("-o help lists the options of %s", async (format) => {
    const { status, stdout } = await disk86("create", "-f", format, "-o", "help");
    const wanted = qemuImg("create", "-f", format, "-o", "help").stdout.split("\n");
    expect(status).toBe(0);
    for (const line of stdout.replace(/\n$/, "").split("\n")) expect(wanted).toContain(line);
  });

  test("a VDI larger than QEMU's bound is refused", async () => {
    expect((await disk86("create", "-f", "vdi", "big.vdi", "1024T")).stderr).toContain("max supported is 0x1fffff8000000");
    expect(existsSync("big.vdi")).toBe(false);
  });

  test("an image that is there is overwritten in place", async () => {
    writeFileSync("x.qcow2", Buffer.alloc(3 << 20, 7), { mode: 0o640 });
    linkSync("x.qcow2", "other-name.qcow2");
    expect((await disk86("create", "-q", "-f", "qcow2", "x.qcow2", "1M")).status).toBe(0);
    expect(statSync("x.qcow2").ino).toBe(statSync("other-name.qcow2").ino);
    runTool("qemu-img", ["check", "x.qcow2"]);
  });

  test("options that cannot be leave what is there alone", async () => {
    writeFileSync("x.qcow2", "precious");
    expect((await disk86("create", "-q", "-f", "qcow2", "-o", "cluster_size=3k", "x.qcow2", "1M")).status).toBe(1);
    expect(readFileSync(join(folder, "x.qcow2"), "utf8")).toBe("precious");
  });
});
