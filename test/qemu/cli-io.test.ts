import { copyFileSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { disk86 } from "../support/cli.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool, type ToolResult } from "../support/tools.ts";

const folder = tempFolder(), home = process.cwd();
const img = (...args: string[]): string => runTool("qemu-img", args);

/** Lines of commands, `;` between them; each line is run on a new copy of every image. */
const LINES = [
  "read 0 512", "read -P 0xaa 64k 64k", "read -P 1 64k 64k", "read -v 64k 40", "read -v -P 0xaa 65530 20", "read -C 0 64k", "read -q 0 64k", "read -qv 0 16", "r 1k 1k", "read -p 0 512",
  "read", "read 0", "read x 5", "read 0 x", "read 0 512 5", "read -z 0 5", "read -Q 0 512", "read 0 3G", "read -1 5", "read 0 -5", "read 8E 5", "read 0 5E", "read 5E 5", "read 100M 1", "read 0 0", "read -P", "read 1048575 2",
  "read -P 256 0 512", "read -P abc 0 512", "read -P -1 0 512", "read -P 0777 0 512", "read -P 0x 0 512", "read -P 010 0 512", "read -s 0 0 512", "read -l 5 0 512", "read -P 0xaa -s 64k -l 1k 0 128k", "read -P 0xaa -s 100 -l 500 0 512",
  "read -P 0 -l 0 0 512", "read -P 0 -s 100 0 512", "read -P 0 -s x 0 512", "read -P 0 -l x 0 512", "read 0x200 0x10", "read 1.5k 512", "read 0 1.5", "-- read 0 512", "read -- 0 512",
  "readv 0 512 512", "readv -v 0 16 16", "readv 0 x", "readv x 5", "readv -P 1 0 512", "readv -P 0xaa 64k 1k 1k", "readv 0", "readv -P x 0 512", "readv 0 1G 1G", "readv 0 2G", "readv 100M 512", "readv -q 0 512",
  "write 0 512; read -P 0xcd 0 512", "write 1 3; read -v 0 8", "write -P 7 60k 8k; read -P 7 60k 8k; map", "write 0 2M", "write -q 0 512", "write -C 0 512", "w 0 4k", "write 0 512 1", "write 0 5G", "write -P 300 0 1", "write", "write 0 x", "write 0 0",
  "write -z 64k 64k; read -P 0 64k 64k; map", "write -zu 64k 64k; read -P 0 64k 64k; map", "write -z 65k 1k; read -P 0 65k 1k; read -P 0xaa 66k 1k", "write -u 0 512", "write -n 0 512", "write -z -P 1 0 512", "write -zP 1 0 512", "write -f 0 512", "write -zf 0 512",
  "write -s nofile 0 512", "write -s pattern 0 1000; read -v 0 40", "write -s pattern -P 1 0 512", "write -s empty 0 512", "write -c 1 64k", "write -c 0 1", "write -c 256k 64k; read -P 0xcd 256k 64k; map", "write -c -P 3 256k 512k; read -P 3 256k 512k", "write -c 512 512", "write -c 1M 64k", "write -fc 0 64k", "write -zb 0 512", "write -b 1 512", "write -X 0 1",
  "writev 0 512 512; read -P 0xcd 0 1k", "writev 0 5", "writev 0 x", "writev -f 0 512", "writev 0 3G", "writev 0 1G 1G", "writev -P 9 1k 1k 1k; read -P 9 1k 2k", "writev -q 0 1", "writev 100M 5", "writev -P x 0 1",
  "aio_read 0 4k; aio_flush", "aio_read -P 1 0 512; aio_flush", "aio_read -i 0 512", "aio_read 0 x", "aio_read 100M 512", "aio_read -v 64k 20; aio_flush", "aio_read -q 0 1; aio_flush", "aio_read 0", "aio_read -P x 0 1",
  "aio_write 0 4k; aio_flush; read -P 0xcd 0 4k", "aio_write -P 3 0 512 512; aio_flush; read -P 3 0 1k", "aio_write -i 0 512", "aio_write -z 0 512 512", "aio_write -u 0 512", "aio_write 100M 512", "aio_write 0 x", "aio_write -f 0 1; aio_flush",
  "discard 64k 64k; read -P 0 64k 64k; map", "discard x 1", "discard 0 x", "discard 0 3", "discard 0 100M", "discard 0 3G", "discard -q 0 64k", "discard -C 0 64k", "discard 0", "discard 0 0", "d 0 512",
  "flush", "flush 1", "f", "truncate 2M; length; map", "truncate 512k; length", "truncate x", "truncate -m bogus 2M", "truncate", "truncate -m off 3M; length", "t 1536k; l",
  "alloc 0", "alloc 64k", "alloc 64k 128k", "alloc x", "alloc 0 x", "alloc 3 5", "alloc 100M", "alloc 0 100M", "alloc", "alloc 1 2 3", "a 0 1M", "map", "map 1", "map 1 2", "length", "length 5", "l", "info", "i", "info 1",
  "bogus", "", "sleep 1", "sleep x", "sleep", "sleep -5", "help bogus", "help a b", "quit; read 0 512", "q", "close; read 0 512", "c; length", "open x", "open", "close; open -X", "close; open x y", "close; open gone", "close; open -r x; length",
  "reopen -r; write 0 512", "reopen -rw", "reopen -c bogus", "reopen x", "reopen; length", "reopen -c writethrough; write 0 512; read -P 0xcd 0 512", "break a b", "break", "resume a", "remove_break a", "sigraise x", "sigraise", "abort 1", "aio_flush 1",
];

/** What is given before the commands. */
const STARTS = ["-r", "-s", "-U", "-n", "-t none", "-t writethrough", "-t directsync", "-t bogus", "-d ignore", "-d bogus", "-i native", "-i bogus", "-k", "-m", "-f raw", "-f bogus", "-f qcow2", "-rs"];
const CHANGES = "write -P 5 0 64k; read -P 5 0 64k; discard 0 64k; write -z 64k 64k; read -P 0 64k 64k; truncate 2M; flush; length";

const words = (text: string): string[] => text.split(" ").filter((word) => word !== "");
const commands = (line: string): string[] => line.split("; ").flatMap((command) => ["-c", command]);

/** What is told of time is never the same. */
const masked = (text: string): string => text.replaceAll(/; \S+( sec)? \(.* ops\/sec\)/g, "; TIME").replaceAll(/^(\d+,\d+),.*$/gm, "$1,TIME");
const comparable = ({ status, stdout, stderr }: ToolResult) => ({ status, stdout: masked(stdout), failed: stderr !== "" });

describe.skipIf(!requireTool("qemu-img", "qemu-io"))("io, as qemu-io", () => {
  beforeAll(() => {
    process.chdir(folder);
    img("create", "-q", "-f", "raw", "disk.raw", "1M");
    runTool("qemu-io", ["-f", "raw", "-c", "write -P 0xaa 64k 64k", "disk.raw"]);
    img("convert", "-O", "qcow2", "disk.raw", "disk.qcow2");
    img("create", "-q", "-f", "qcow2", "-b", "disk.raw", "-F", "raw", "top.qcow2");
    runTool("qemu-io", ["-c", "write -P 0xaa 96k 16k", "top.qcow2"]);
    writeFileSync("pattern", "some bytes, ");
    writeFileSync("empty", "");
  });
  afterAll(() => process.chdir(home));

  async function both(image: string, format: string, args: readonly string[]): Promise<{ ours: ToolResult; theirs: ToolResult }> {
    copyFileSync(image, "x");
    const theirs = tryTool("qemu-io", args);
    renameSync("x", "theirs");
    copyFileSync(image, "x");
    const ours = await disk86("io", ...args);
    if (!readFileSync("x").equals(readFileSync("theirs"))) {
      img("compare", "-f", format, "-F", format, "x", "theirs");
      if (format === "qcow2") img("check", "-q", "x");
    }
    return { ours, theirs };
  }

  describe.each(["disk.raw", "disk.qcow2", "top.qcow2"])("%s", (image) => {
    const format = image.endsWith(".raw") ? "raw" : "qcow2";
    test.each(LINES)("%s", async (line) => {
      const { ours, theirs } = await both(image, format, ["-f", format, ...commands(line), "x"]);
      expect(comparable(ours)).toEqual(comparable(theirs));
    });
  });

  test.each(STARTS)("%s", async (start) => {
    const { ours, theirs } = await both("disk.qcow2", start === "-f raw" ? "raw" : "qcow2", [...words(start), ...commands(CHANGES), "x"]);
    expect(comparable(ours)).toEqual(comparable(theirs));
  });
});
