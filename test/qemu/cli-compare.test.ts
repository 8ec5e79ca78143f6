import { copyFileSync, truncateSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

const IMAGES = [
  "a.raw", "b.raw", "odd.raw", "none.raw", "big.raw", "empty.qcow2", "zeros.qcow2", "q.qcow2", "copy.qcow2", "last.qcow2",
  "longer.qcow2", "top.qcow2", "flat.qcow2", "packed.qcow2", "snapshots.qcow2", "metadata.qcow2", "short-base.qcow2", "big.qcow2",
];

function makeImages(): void {
  img("create", "-q", "a.raw", "10M");
  io("-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "a.raw");
  img("create", "-q", "b.raw", "12M");
  io("-f", "raw", "-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "-c", "write -P 3 11M 512", "b.raw");
  writeFileSync("odd.raw", Buffer.alloc(1300, "x"));
  writeFileSync("none.raw", "");
  img("create", "-q", "-f", "qcow2", "empty.qcow2", "10M");
  img("create", "-q", "-f", "qcow2", "zeros.qcow2", "10M");
  io("-c", "write -z 0 10M", "zeros.qcow2");
  img("create", "-q", "-f", "qcow2", "q.qcow2", "10M");
  io("-c", "write -P 1 1M 64k", "-c", "write -P 2 5M 4k", "q.qcow2");
  for (const name of ["copy.qcow2", "last.qcow2", "longer.qcow2"]) copyFileSync("q.qcow2", name);
  io("-c", "write -P 3 10485000 1", "last.qcow2");
  img("resize", "-q", "longer.qcow2", "6G");
  img("create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", "top.qcow2");
  io("-c", "write -P 4 7M 3M", "-c", "write -z 5M 64k", "top.qcow2");
  img("convert", "-O", "qcow2", "top.qcow2", "flat.qcow2");
  img("convert", "-c", "-O", "qcow2", "top.qcow2", "packed.qcow2");
  copyFileSync("q.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
  img("create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "metadata.qcow2", "10M");
  img("create", "-q", "-f", "qcow2", "-b", "q.qcow2", "-F", "qcow2", "short-base.qcow2", "20M");
  img("create", "-q", "big.raw", "5G");
  io("-f", "raw", "-c", "write -P 9 4900M 3M", "big.raw");
  img("convert", "-O", "qcow2", "big.raw", "big.qcow2");
}

/** Same output and exit code; what is said of a failure may differ, whether something is said not. */
async function expectSame(args: readonly string[]): Promise<void> {
  const wanted = qemuImg(...args), ours = await disk86(...args);
  expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("compare, as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  });
  afterAll(() => process.chdir(home));

  describe.each(IMAGES)("%s", (one) => {
    test.each(IMAGES)("and %s", async (two) => {
      await expectSame(["compare", one, two]);
      await expectSame(["compare", "-s", one, two]);
    });
  });

  test.each([
    "-q a.raw b.raw", "-s -q a.raw b.raw", "-p a.raw a.raw", "-p q.qcow2 last.qcow2", "-p a.raw b.raw", "-p -s a.raw b.raw", "-p -q a.raw q.qcow2", "-p none.raw none.raw",
    "-f raw q.qcow2 q.qcow2", "-f raw -F raw q.qcow2 q.qcow2", "-f qcow2 a.raw q.qcow2", "-F qcow2 q.qcow2 a.raw", "-F qcow2 a.raw q.qcow2", "-f foo a.raw a.raw", "-U a.raw q.qcow2",
    "-T foo a.raw a.raw", "-T none a.raw q.qcow2", "a.raw nowhere", "nowhere a.raw", "-p a.raw nowhere", "a.raw", "a.raw b.raw q.qcow2", "", "-z a.raw b.raw", "-f", "a.raw b.raw -q",
  ])("arguments: %s", async (line) => { await expectSame(["compare", ...words(line)]); });

  test("a table that cannot be read is exit code 3, data that cannot be 4", async () => {
    copyFileSync("packed.qcow2", "torn.qcow2");
    io("-f", "raw", "-c", "write -P 255 0x50000 64", "torn.qcow2");
    const { status, stderr } = await disk86("compare", "torn.qcow2", "top.qcow2");
    expect(stderr).not.toBe("");
    expect(status).toBe(qemuImg("compare", "torn.qcow2", "top.qcow2").status);
    copyFileSync("q.qcow2", "bad-table.qcow2");
    // The L1 table: an L2 table that is no cluster.
    io("-f", "raw", "-c", "write -P 1 0x30000 8", "bad-table.qcow2");
    expect(await disk86("compare", "bad-table.qcow2", "q.qcow2")).toMatchObject({ status: 3, stdout: "" });
    truncateSync("torn.qcow2", 0);
  });
});
