import { createHash } from "node:crypto";
import { copyFileSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { Terminal } from "../support/terminal.ts";
import { requireTool, runTool } from "../support/tools.ts";

const sha256 = (path: string): string => createHash("sha256").update(readFileSync(path)).digest("hex");

describe.skipIf(!requireTool("qemu-img", "e2fsck"))("the debian guest on an overlay, in the terminal", () => {
  const folder = tempFolder(), base = join(folder, "debian.qcow2");
  copyFileSync("guests/out/debian.qcow2", base);
  const before = sha256(base);

  test.each(["ide", "virtio"])("keeps over %s what it synced, though its machine is killed", async (bus) => {
    const overlay = join(folder, `${bus}.qcow2`), args = [base, "--overlay", overlay, "--bus", bus];
    const first = new Terminal(args);
    await first.expect("debian# ");
    await first.run("echo hello > /root/f; sync");
    expect(await first.kill("SIGKILL")).toBe("SIGKILL");
    runTool("qemu-img", ["check", overlay]);

    const second = new Terminal(args);
    await second.expect("debian# ");
    expect(await second.run("cat /root/f; grep . /sys/block/*/queue/write_cache")).toMatch(/\nhello\r?\n[^]*write back/);
    expect(await second.run("dmesg | grep -ciE 'ext4-fs error|i/o error'")).toMatch(/\n0\r?\n/);
    expect(await second.kill("SIGTERM")).not.toBe("SIGKILL");

    runTool("qemu-img", ["check", overlay]);
    expect(JSON.parse(runTool("qemu-img", ["info", "--output=json", overlay]))).toMatchObject({ format: "qcow2", "backing-filename": "debian.qcow2", "backing-filename-format": "qcow2" });
    expect(sha256(base)).toBe(before);
  }, 600_000);
});
