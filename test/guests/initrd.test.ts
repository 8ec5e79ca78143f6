import { appendFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { runTool, tryTool } from "../support/tools.ts";

const INITRD = join(import.meta.dirname, "../../guests/lib/initrd.mjs");
const folder = tempFolder();
const path = (name: string) => join(folder, name);

/** The files of a "newc" archive, by name. */
function unpack(archive: Buffer): Map<string, string> {
  const files = new Map<string, string>();
  for (let at = 0; at < archive.length;) {
    const field = (index: number) => parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    expect(archive.toString("latin1", at, at + 6)).toBe("070701");
    const data = (at + 110 + field(11) + 3) & ~3;
    files.set(archive.toString("latin1", at + 110, at + 109 + field(11)), archive.toString("latin1", data, data + field(6)));
    at = (data + field(6) + 3) & ~3;
  }
  return files;
}

function addModule(file: string, depends: string): void {
  writeFileSync(path(`modules/fs/${file}.ko`), `ELF...\0license=GPL\0depends=${depends}\0name=x\0`);
}

mkdirSync(path("modules/fs"), { recursive: true });
addModule("disk-driver", "core_lib,helper");
addModule("core-lib", "");
addModule("helper", "core-lib");
addModule("unused", "");
const signature = "x".repeat(300);
const info = Buffer.alloc(12);
info.writeUInt32BE(signature.length, 8);
appendFileSync(path("modules/fs/helper.ko"), `${signature}${info.toString("latin1")}~Module signature appended~\n`, "latin1");
writeFileSync(path("busybox"), "busybox program");

test("loads modules after what they depend on, and packs no others", () => {
  writeFileSync(path("init"), "#!/bin/sh\ncase x in x) insert @disk_driver ;; esac\ninsert @helper @core_lib\n");
  runTool("node", [INITRD, path("modules"), path("busybox"), path("init"), path("out")]);
  const files = unpack(readFileSync(path("out")));
  expect(files.get("init")).toBe("#!/bin/sh\ncase x in x) insert core_lib helper disk_driver ;; esac\ninsert core_lib helper\n");
  expect(files.get("bin/busybox")).toBe("busybox program");
  expect(files.get("lib/helper.ko")).toBe("ELF...\0license=GPL\0depends=core-lib\0name=x\0");
  expect([...files.keys()].filter((name) => name.startsWith("lib/"))).toHaveLength(3);
  expect([...files.keys()].at(-1)).toBe("TRAILER!!!");
});

test("a module the kernel lacks is an error that names it", () => {
  writeFileSync(path("init"), "insert @no_such\n");
  const { status, stderr } = tryTool("node", [INITRD, path("modules"), path("busybox"), path("init"), path("out")]);
  expect(status).toBe(1);
  expect(stderr).toContain("the kernel has no module no_such");
});
