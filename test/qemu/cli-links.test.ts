import { spawnSync } from "node:child_process";
import { symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { buildCli } from "../support/built-cli.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { runProgram } from "../../disk/tools/program.ts";
import { DISK_VERBS } from "../../disk/tools/verbs.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

const folder = tempFolder();

/** Runs a command line as the program that a link named qemu-img is. */
async function asQemuImg(...args: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  let stdout = "", stderr = "";
  const output = { out: (text: string) => { stdout += text; }, error: (text: string) => { stderr += text; }, watched: false };
  return { status: await runProgram({ name: "qemu-img", version: "test", verbs: DISK_VERBS }, args, output), stdout, stderr };
}

const WRONG = [
  "", "foo", "--foo", "-U info x", "info", "info a b", "info --foo x", "info -f", "info --output=x x", "-T", "--trace", "-T x=y info x", "-T foo,y=z info x", "compare a", "convert a", "create", "resize x", "check", "map", "map -s x y", "create -f raw x 1M 2M", "rebase x", "measure", "bench", "dd", "commit", "bench -d x y", "dd if=x", "measure --size x", "commit -r x y",
];

describe.skipIf(!requireTool("qemu-img"))("a link named qemu-img", () => {
  test.each(WRONG)("qemu-img %s: the same complaint", async (line) => {
    const args = line.split(" ").filter((word) => word !== ""), { status, stdout, stderr } = tryTool("qemu-img", args);
    expect(await asQemuImg(...args)).toEqual({ status, stdout, stderr });
  });

  test.each(["-T foo", "-Tfoo", "--trace foo", "--trace=enable=foo,file=/dev/null"])("%s is accepted", async (line) => {
    const args = [...line.split(" "), "info", "missing"], { stderr } = tryTool("qemu-img", args), ours = await asQemuImg(...args);
    expect(ours.status).toBe(1);
    expect(ours.stderr).toBe(stderr);
  });

  test.each(["info", "check", "map", "resize --shrink", "check -r all"])("%s of an image that another program writes: the same complaint", async (verb) => {
    const file = join(folder, "locked.qcow2");
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", file, "1M"]);
    const lock = FileStorage.open(file, { mode: "write" });
    try {
      const args = [...verb.split(" "), "-f", "qcow2", file, ...(verb.startsWith("resize") ? ["1M"] : [])], { status, stdout, stderr } = tryTool("qemu-img", args);
      expect(await asQemuImg(...args)).toEqual({ status, stdout, stderr });
    } finally {
      lock.close();
    }
  });

  test("--version and --help are what programs look for", async () => {
    const theirs = tryTool("qemu-img", ["--help"]).stdout, help = await asQemuImg("--help");
    expect((await asQemuImg("--version")).stdout).toMatch(/^qemu-img version 7\.\d+\.\d+ /);
    expect(await asQemuImg("info", "--help")).toEqual(help);
    const verbs = (text: string): (string | undefined)[] => [...text.matchAll(/^ {2}([a-z]+) \S/gm)].map(([, verb]) => verb);
    expect(verbs(theirs)).toEqual(expect.arrayContaining(verbs(help.stdout)));
    expect(verbs(help.stdout)).toEqual(expect.arrayContaining(["check", "convert", "create", "info"]));
    expect(help.stdout).toMatch(/^Supported formats: .*\bqcow2 .*\braw\b/m);
  });
});

describe("the command through a link", () => {
  let cli = "";
  beforeAll(async () => {
    cli = await buildCli();
    for (const name of ["qemu-img", "other"]) symlinkSync(cli, join(folder, name));
  }, 60_000);

  test("its name says what it is", () => {
    const run = (name: string, ...args: string[]) => spawnSync(join(folder, name), args, { encoding: "utf8", cwd: folder });
    expect(run("qemu-img", "--version").stdout).toMatch(/^qemu-img version /);
    expect(run("qemu-img", "info", "missing").stderr).toMatch(/^qemu-img: Could not open 'missing': /);
    expect(run("other", "--version").stdout).toMatch(/^disk86 /);
    expect(run("other", "info", "missing").stderr).toMatch(/^disk86: missing: /);
  });

  test("SIGUSR1 tells how far it is", () => {
    writeFileSync(join(folder, "large.raw"), Buffer.alloc(256 << 20, "some text"));
    // Once it is at work it is asked again and again until it ends.
    const script = "./qemu-img convert -O qcow2 -o cluster_size=4k large.raw out.qcow2 & pid=$!; until ls .out.qcow2.* >/dev/null 2>&1; do sleep 0.01; done; while kill -USR1 $pid 2>/dev/null; do sleep 0.05; done; wait $pid";
    const { status, stdout, stderr } = spawnSync("sh", ["-c", script], { encoding: "utf8", cwd: folder });
    expect({ status, stdout }).toEqual({ status: 0, stdout: "" });
    expect(stderr).toMatch(/^( {4}\(\d+\.\d\d\/100%\)\n)+$/);
  });
});
