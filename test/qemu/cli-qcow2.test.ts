import { copyFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86, qemuImg } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);
const io = (...args: string[]): string => runTool("qemu-io", args);
const words = (line: string): string[] => line.split(" ").filter((word) => word !== "");

/** Same output and exit code; what is said of a failure may differ, whether something is said not. */
async function expectSame(line: string): Promise<void> {
  const wanted = qemuImg(...words(line)), ours = await disk86(...words(line));
  expect({ ...ours, stderr: ours.stderr !== "" }).toEqual({ ...wanted, stderr: wanted.stderr !== "" });
}

function makeImages(): void {
  img("create", "-q", "-f", "qcow2", "plain.qcow2", "10M");
  img("create", "-q", "-f", "raw", "disk.raw", "1M");
  copyFileSync("plain.qcow2", "snapshots.qcow2");
  img("snapshot", "-c", "one", "snapshots.qcow2");
  io("-c", "write -P 7 0 128k", "snapshots.qcow2");
  img("snapshot", "-c", "two words, ünïcode \"quoted\" and longer than its column", "snapshots.qcow2");
}

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("as qemu-img", () => {
  beforeAll(() => {
    process.chdir(folder);
    makeImages();
  });
  afterAll(() => process.chdir(home));

  test.each([
    "snapshot -l snapshots.qcow2", "snapshot -l plain.qcow2", "snapshot -l disk.raw", "snapshot -q -U -l snapshots.qcow2", "snapshot snapshots.qcow2",
    "snapshot -l nothing-here", "snapshot -l", "snapshot -l a b", "snapshot --frob", "snapshot -l -c x snapshots.qcow2",
  ])("%s", async (line) => { await expectSame(line); });

  test.each(["-c", "-a", "-d"])("snapshot %s is refused by its name", async (action) => {
    const { status, stderr } = await disk86("snapshot", action, "one", "snapshots.qcow2");
    expect(status).toBe(1);
    expect(stderr).toContain(`${action} is not supported`);
  });
});
