import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, statSync, symlinkSync } from "node:fs";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { findTool, requireTool, tryTool } from "../support/tools.ts";

const SCRIPT = join(import.meta.dirname, "../../guests/build.sh");
const folder = tempFolder();
const build = (...args: string[]) => tryTool("bash", [SCRIPT, ...args], 120_000);

test("--help shows every guest and option, with examples", () => {
  const { status, stdout } = build("--help");
  expect(status).toBe(0);
  for (const word of ["tiny", "debian", "bootsector", "--with", "--kernel", "--out", "--force", "bash guests/build.sh tiny --kernel own"]) {
    expect(stdout).toContain(word);
  }
});

test.each([
  [["plan9"], "no guest is called 'plan9'"],
  [["--fast"], "unknown option --fast"],
  [["--out"], "--out needs a value"],
  [["--kernel", "bsd"], "--kernel takes lz4, own or stock"],
  [["debian", "--with", "fio; rm -rf x"], "--with takes package names"],
  [["tiny", "--with", "fio"], "--with is for the debian guest"],
])("%j is refused with words", (args, words) => {
  const { status, stderr } = build(...args);
  expect(status).toBe(2);
  expect(stderr).toContain(words);
});

test("a machine without apt is told what is missing and what to do", () => {
  const bin = join(folder, "bin");
  mkdirSync(bin);
  for (const tool of ["bash", "awk", "cat", "cksum", "dirname", "node", "sed", "tar"]) symlinkSync(findTool(tool) ?? tool, join(bin, tool));
  const out = join(folder, "nothing");
  const { status, stderr } = spawnSync(join(bin, "bash"), [SCRIPT, "tiny", "--out", out], { env: { PATH: bin }, encoding: "utf8" });
  expect(stderr).toMatch(/Cannot build .*: it has no apt-get apt-cache/);
  expect(stderr).toContain("an image of your own");
  expect(status).toBe(3);
  expect(existsSync(out)).toBe(false);
});

describe.skipIf(!requireTool("apt-get", "dpkg-deb", "flock"))("building into a folder", () => {
  const out = join(folder, "out");
  const files = ["bios/seabios.bin", "bios/vgabios.bin", "bootsector.bin", "bootsector.qcow2"].map((file) => join(out, file));
  const contents = () => files.map((file) => readFileSync(file).toString("base64"));
  const modified = () => files.map((file) => statSync(file).mtimeMs);

  test("a guest brings the BIOS along; progress is a line a step; nothing half-made stays", () => {
    const { status, stderr } = build("bootsector", "--out", out);
    expect({ status, stderr }).toMatchObject({ status: 0 });
    expect(stderr).toMatch(/^bootsector +\d+\.\d s of ~\d+ s {2}done: /m);
    expect(files.filter((file) => !existsSync(file))).toEqual([]);
    expect(readdirSync(out).sort()).toEqual([".lock", ".stamps", "bios", "bootsector.bin", "bootsector.qcow2"]);
  });

  test("what is up to date is left alone; what is missing is built; --force builds the same bytes again", () => {
    const [before, times] = [contents(), modified()];
    expect(build("bootsector", "--out", out).stderr).toBe("bios: up to date\nbootsector: up to date\n");
    expect(modified()).toEqual(times);
    rmSync(join(out, "bootsector.bin"));
    expect(build("bootsector", "--out", out).stderr).toContain("bootsector ");
    expect(contents()).toEqual(before);
  });

  test("a second build waits for the first", async () => {
    rmSync(join(out, "bootsector.qcow2"));
    const first = spawn("flock", [join(out, ".lock"), "sh", "-c", "echo locked; sleep 60"], { stdio: ["ignore", "pipe", "ignore"], detached: true });
    await once(first.stdout, "data");
    const second = spawn("bash", [SCRIPT, "bootsector", "--out", out], { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    for await (const text of second.stderr.iterator({ destroyOnReturn: false })) {
      said += String(text);
      if (said.includes("waiting for it")) break;
    }
    expect(said).toContain("Another build is at work");
    expect(existsSync(join(out, "bootsector.qcow2"))).toBe(false);
    process.kill(-(first.pid ?? 0));
    const [status] = await once(second, "close");
    expect(status).toBe(0);
    expect(existsSync(join(out, "bootsector.qcow2"))).toBe(true);
  });
});
