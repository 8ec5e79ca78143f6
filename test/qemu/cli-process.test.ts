import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { beforeAll, describe, expect, test } from "vitest";
import { buildCli, startNode } from "../support/built-cli.ts";
import { tempFolder } from "../support/temp.ts";

const folder = tempFolder();
let cli = "";
const run = (...args: string[]) => spawnSync(process.execPath, [cli, ...args], { cwd: folder, encoding: "utf8" });
const median = (times: number[]): number => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)] ?? 0;

describe("the command disk86, as a process", () => {
  beforeAll(async () => { cli = await buildCli(); });

  test("starts fast", () => {
    run("create", "-f", "qcow2", "disk.qcow2", "1G");
    const node: number[] = [], info: number[] = [];
    const time = (into: number[], args: string[]): void => {
      const began = performance.now();
      expect(spawnSync(process.execPath, args, { cwd: folder }).status).toBe(0);
      into.push(performance.now() - began);
    };
    for (let i = 0; i < 7; i++) {
      time(node, ["-e", "0"]);
      time(info, [cli, "info", "disk.qcow2"]);
    }
    console.log(`start-up: disk86 info ${median(info).toFixed(0)} ms, node -e 0 ${median(node).toFixed(0)} ms`);
    // A sanity check only: this machine may be busy.
    expect(median(info) - median(node)).toBeLessThan(400);
  });

  test("output goes to a pipe that closes early", async () => {
    const { status, stderr } = spawnSync("sh", ["-c", `"${process.execPath}" "${cli}" --help | head -1`], { encoding: "utf8" });
    expect({ status, stderr }).toEqual({ status: 0, stderr: "" });
    const early = startNode(cli, ["info", "disk.qcow2"], folder);
    early.child.stdout?.destroy();
    expect((await early.done).stderr).not.toMatch(/internal error/);
  });

  test("an unknown failure is one line; DISK86_DEBUG tells the stack", () => {
    const { status, stderr } = run("info", "missing.qcow2");
    expect({ status, lines: stderr.trimEnd().split("\n") }).toEqual({ status: 1, lines: [expect.stringMatching(/^disk86: missing.qcow2: no such file/)] });
    const loud = spawnSync(process.execPath, [cli, "info", "missing.qcow2"], { cwd: folder, encoding: "utf8", env: { ...process.env, DISK86_DEBUG: "1" } });
    expect(loud.stderr).toMatch(/^ {4}at /m);
  });

  test.each(["boot", "create", "info", "check", "map", "compare", "resize", "convert", "serve"])("%s --help has a usage, options and examples", (verb) => {
    const { status, stdout } = run(verb, "--help");
    expect(status).toBe(0);
    expect(stdout).toMatch(new RegExp(`^usage: disk86 ${verb} .*\n\n[^]*-h, --help[^]*\n\nExamples:\n  disk86 ${verb} `));
    expect(run("help", verb).stdout).toBe(stdout);
    expect(run("--help").stdout).toMatch(new RegExp(`^  ${verb} +`, "m"));
  });

  test("a signal while an image is made leaves nothing half-made", async () => {
    // Large tables: it takes a moment.
    const { child, done } = startNode(cli, ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k,refcount_bits=64", "big.qcow2", "2T"], folder);
    setTimeout(() => child.kill("SIGINT"), 150);
    await done;
    expect(readdirSync(folder).filter((name) => name.endsWith(".new"))).toEqual([]);
    // Should it have been quicker than the signal, it is whole.
    expect(existsSync(`${folder}/big.qcow2`) ? run("check", "big.qcow2").status : 0).toBe(0);
  });
});
