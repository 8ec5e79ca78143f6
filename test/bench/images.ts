import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";

const MIB = 2 ** 20;

/** How much of each folder goes into the base image, in MiB: programs, libraries, texts, as a guest's disk has them. */
const SOURCES: readonly (readonly [folder: string, mebibytes: number])[] = [["/usr/bin", 150], ["/usr/lib", 200], ["/usr/share", 150], ["/usr/include", 30]];

/** Works in a new folder that is memory where there is any: else the disk is measured. Afterwards it is gone. */
export async function inMemoryFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(process.env["BENCH_DIR"] ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir()), "disk86-bench-"));
  const home = process.cwd(), remove = (): void => { rmSync(folder, { recursive: true, force: true }); };
  process.once("exit", remove);
  try {
    process.chdir(folder);
    await use(folder);
  } finally {
    process.chdir(home);
    remove();
    process.off("exit", remove);
  }
}

/** A raw image of 2 GiB, an ext4 of real files, about 660 MiB of them allocated: made once, then copied into `folder`. */
export function baseImage(folder: string): string {
  const cached = join(tmpdir(), "disk86-bench-cache", "base.raw"), base = join(folder, "base.raw");
  if (!existsSync(cached)) makeBase(cached);
  execFileSync("cp", ["--sparse=always", cached, base]);
  return base;
}

function makeBase(path: string): void {
  const root = `${path}.files`, fresh = `${path}.new`;
  console.log(`making ${path} from files of ${SOURCES.map(([folder]) => folder).join(", ")}`);
  rmSync(root, { recursive: true, force: true });
  mkdirSync(root, { recursive: true });
  for (const [folder, mebibytes] of SOURCES) copySome(folder, root, mebibytes * MIB);
  rmSync(fresh, { force: true });
  execFileSync("mke2fs", ["-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", root, fresh, "2G"], { env: { ...process.env, PATH: `${process.env["PATH"]}:/usr/sbin:/sbin` } });
  rmSync(root, { recursive: true });
  renameSync(fresh, path);
}

/** Copies files in their order until there are `bytes`. */
function copySome(folder: string, root: string, bytes: number): void {
  const pending = [folder];
  for (let path = pending.pop(); path !== undefined && bytes > 0; path = pending.pop()) {
    const stats = lstatSync(path);
    if (stats.isDirectory()) pending.push(...readdirSync(path).sort().reverse().map((name) => join(path ?? "", name)));
    if (!stats.isFile() || stats.size > 32 * MIB) continue;
    const to = join(root, path);
    mkdirSync(dirname(to), { recursive: true });
    copyFileSync(path, to);
    bytes -= stats.size;
  }
}

/** The command as it is shipped. */
export const OURS = join(process.cwd(), "dist/node/disk86.js");

/** Has Node say what memory it came to, in KiB, on the last line of its errors. */
export const PEAK = ["--import", "data:text/javascript,process.on('exit',()=>process.stderr.write('\\n'+process.resourceUsage().maxRSS))"];

export const qemuImg = (...args: string[]): string => execFileSync("qemu-img", args, { encoding: "utf8" });
