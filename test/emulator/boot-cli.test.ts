import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { bootsector, tiny } from "../../guests/catalog.ts";
import { buildCli, startNode } from "../support/built-cli.ts";
import { guestFile, rawGuest, requireGuests } from "../support/guests.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, type ToolResult } from "../support/tools.ts";

/** A boot on a machine that does much else. */
const BOOT = 240_000;
const folder = tempFolder();
let cli = "", image = "", raw = "";

function disk86(...args: string[]): Promise<ToolResult> {
  const { child, done } = startNode(cli, args, folder);
  child.stdin?.end();
  return done;
}

const hash = (file: string): string => createHash("sha1").update(readFileSync(join(folder, file))).digest("hex");

describe.skipIf(!requireGuests(tiny, bootsector))("disk86 boot", () => {
  beforeAll(async () => {
    cli = await buildCli();
    image = join(folder, "boot.qcow2");
    copyFileSync(guestFile(bootsector.image), image);
    raw = rawGuest(bootsector, folder);
  });

  describe("the boot sector guest, which writes to its disk", () => {
    test.each([["ide"], ["virtio"]])("temporary changes on %s leave the image alone", async (bus) => {
      const before = hash("boot.qcow2"), { status, stdout, stderr } = await disk86("boot", "-m", "16", "--bus", bus, "boot.qcow2");
      expect({ status, stdout: stdout.replaceAll("\r", "") }).toEqual({ status: 0, stdout: expect.stringMatching(/BOOT\nSUM dbc89357\nDONE/) });
      expect(stderr).toMatch(/changes are temporary.*at most 1 GiB/);
      expect(stderr).toMatch(/the guest has halted/);
      expect(hash("boot.qcow2")).toBe(before);
    }, BOOT);

    test("--overlay makes a qcow2 beside the image, which names it relatively; it is used again", async () => {
      const before = hash("boot.qcow2");
      mkdirSync(join(folder, "work"));
      expect((await disk86("boot", "-m", "16", "--overlay", "work/over.qcow2", "boot.qcow2")).status).toBe(0);
      const info = JSON.parse(runTool("qemu-img", ["info", "--output=json", join(folder, "work/over.qcow2")])) as Record<string, unknown>;
      expect(info).toMatchObject({ format: "qcow2", "backing-filename": "../boot.qcow2", "backing-filename-format": "qcow2" });
      runTool("qemu-img", ["check", join(folder, "work/over.qcow2")]);
      symlinkSync("boot.qcow2", join(folder, "same.qcow2"));
      const again = await disk86("boot", "-m", "16", "--overlay", "work/over.qcow2", "same.qcow2");
      expect(again.stdout).toMatch(/DONE/);
      expect(again.stderr).toMatch(/the changes are in work\/over.qcow2/);
      expect(hash("boot.qcow2")).toBe(before);
    }, BOOT);

    test("--write writes the image itself", async () => {
      copyFileSync(raw, join(folder, "own.raw"));
      const before = hash("own.raw"), refused = await disk86("boot", "-m", "16", "--write", "own.raw");
      expect(refused).toMatchObject({ status: 1, stderr: expect.stringMatching(/say -f raw/) });
      expect(hash("own.raw")).toBe(before);
      expect((await disk86("boot", "-m", "16", "--write", "-f", "raw", "own.raw")).stdout).toMatch(/DONE/);
      expect(hash("own.raw")).not.toBe(before);
    }, BOOT);

    test("temporary changes are bounded: beyond that the guest sees an error, and so does its user", async () => {
      const { stdout, stderr } = await disk86("boot", "-m", "16", "--temporary-size", "300k", "boot.qcow2");
      expect(stdout).toMatch(/ERR/);
      expect(stderr).toMatch(/the guest's write failed/);
    }, BOOT);
  });

  test.each([
    [["boot"], /Expecting one image/], [["boot", "nothing.qcow2"], /nothing.qcow2: no such file/], [["boot", "boot.qcow2", "--bios", "none"], /no BIOS at none/],
    [["boot", "boot.qcow2", "--bus", "scsi"], /ide and virtio are/], [["boot", "boot.qcow2", "--boot-order", "tape"], /disk, cdrom, floppy are/], [["boot", "boot.qcow2", "--write", "--temporary"], /exclude each other/],
    [["boot", "boot.qcow2", "--exec", "ls"], /--exec needs --prompt/], [["boot", "boot.qcow2", "--overlay", "boot.qcow2"], /stands alone/], [["boot", "-f", "qcow2", "boot.raw"], /not a qcow2 image/], [["boto"], /did you mean boot/],
  ])("%j is refused with its cure", async (args, why) => {
    copyFileSync(raw, join(folder, "boot.raw"));
    const { status, stdout, stderr } = await disk86(...args);
    expect({ status, stdout }).toEqual({ status: 1, stdout: "" });
    expect(stderr).toMatch(why);
    expect(stderr).not.toMatch(/^ {4}at /m);
  });

  test("an overlay on another image is refused", async () => {
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", join(folder, "other.qcow2"), "8M"]);
    runTool("qemu-img", ["create", "-q", "-f", "qcow2", "-b", "other.qcow2", "-F", "qcow2", join(folder, "on-other.qcow2")]);
    expect(await disk86("boot", "--overlay", "on-other.qcow2", "boot.qcow2")).toMatchObject({ status: 1, stderr: expect.stringMatching(/is an overlay on other.qcow2, not on boot.qcow2/) });
  });

  test("a guest by its name, commands from a pipe, changes kept from run to run", async () => {
    const run = async (...commands: string[]): Promise<ToolResult> => {
      const { child, done } = startNode(cli, ["boot", "tiny", "--overlay", "tiny-work.qcow2"], folder);
      child.stdin?.end(commands.map((command) => `${command}\n`).join(""));
      return done;
    };
    const first = await run("echo kept-$((6*7)) > /root/note; sync");
    expect(first).toMatchObject({ status: 0, stderr: expect.stringMatching(/the input ended; the changes are in tiny-work.qcow2/) });
    const second = await run("cat /root/note");
    expect(second.stdout).toMatch(/kept-42/);
    runTool("qemu-img", ["check", join(folder, "tiny-work.qcow2")]);
    expect(existsSync(`${guestFile(tiny.image)}.lock`)).toBe(false);
  }, 2 * BOOT);

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)("%s closes the disk: what the guest had flushed is there", async (signal) => {
    const { child, done, said } = startNode(cli, ["boot", "tiny", "--overlay", `${signal}.qcow2`], folder);
    child.stdin?.write("echo written > /root/note; sync; echo syn''ced; sleep 1000\n");
    await said("synced");
    child.kill(signal);
    const { status, stderr } = await done;
    expect(status).toBe({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }[signal]);
    expect(stderr).toMatch(`stopped by ${signal}; the changes are in ${signal}.qcow2`);
    runTool("qemu-img", ["check", join(folder, `${signal}.qcow2`)]);
  }, BOOT);

  test.skipIf(!requireTool("python3"))("on a terminal: raw, Ctrl-C is the guest's, Ctrl-A x leaves, the terminal is as before", async () => {
    // What is typed is echoed: only what a command made of it tells that it ran, and that it has the terminal.
    const steps = [[tiny.prompt, "sh -c 'echo $((70+7)); exec sleep 1000'\r"], ["77\r", "\u0003"], [tiny.prompt, "\u0001\u0001\u0001h"], ["Ctrl-A x", "echo $((40+2))\r"], ["42\r", "\u0001x"]];
    const result = JSON.parse(runTool("python3", [join(import.meta.dirname, "../support/ptyRun.py"), JSON.stringify(steps), process.execPath, cli, "boot", "tiny"], BOOT)) as Record<string, unknown>;
    expect(result).toMatchObject({ status: 0, raw: true, restored: true, left: 0, tail: expect.stringMatching(/left; the changes were temporary/) });
  }, BOOT);
});
