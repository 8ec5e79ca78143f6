import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { findTool } from "./tools.ts";

/** What the suites run besides Node, and the Debian package that has it. */
const NEEDED: readonly (readonly [tool: string, debianPackage: string, suites: string])[] = [
  ["qemu-img", "qemu-utils", "comparison with the real QEMU tools"],
  ["chromium", "chromium", "the page and the storages in a real browser"],
  ["nginx", "nginx-light", "images over HTTP from a real server"],
  ["e2fsck", "e2fsprogs", "file systems that a guest wrote"],
  ["debugfs", "e2fsprogs", "file systems that a guest wrote"],
  ["python3", "python3", "the command line on a terminal"],
  ["qemu-nbd", "qemu-utils", "NBD, both sides"],
  ["nbdinfo", "libnbd-bin", "NBD, with other clients"],
  ["nbdcopy", "libnbd-bin", "NBD, with other clients"],
  ["fio", "fio", "NBD, with other clients"],
  ["nbdkit", "nbdkit", "NBD, with other servers"],
  ["bzip2", "bzip2", "bzip2 streams that the reference encoder makes"],
  ["uml_moo", "uml-utilities", "cow images, with user-mode Linux's own tools"],
  ["uml_mkcow", "uml-utilities", "cow images, with user-mode Linux's own tools"],
  ["zstd", "zstd", "zstd frames that the reference encoder makes"],
];

/** The guests that tests boot; a build that is up to date takes no time. */
const GUESTS = ["tiny", "debian", "bootsector"];

/** Vitest's global set-up: installs what is missing where it may (root on Debian), and else says what will be skipped. */
export default function setup(): void {
  const missing = NEEDED.filter(([tool]) => findTool(tool) === undefined);
  if (missing.length > 0 && canInstall()) install(missing.map(([, debianPackage]) => debianPackage));
  for (const [tool, debianPackage, suites] of NEEDED) {
    if (findTool(tool) !== undefined) continue;
    console.warn(`\n*** SKIPPED: ${suites}. ${tool} is not installed (Debian: apt-get install ${debianPackage}) ***\n`);
  }
  if (process.env["CI"] && NEEDED.some(([tool]) => findTool(tool) === undefined)) throw new Error("in CI nothing may be skipped");
  buildGuests();
}

function canInstall(): boolean {
  return process.getuid?.() === 0 && existsSync("/etc/debian_version") && findTool("apt-get") !== undefined;
}

function install(packages: readonly string[]): void {
  console.log(`installing ${[...new Set(packages)].join(", ")}`);
  const apt = (...args: string[]): number | null => spawnSync("apt-get", args, { stdio: "inherit", env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" } }).status;
  apt("-qq", "update");
  apt("-qq", "install", "-y", "--no-install-recommends", ...new Set(packages));
}

/** In CI a guest that cannot be built is a failure; elsewhere its suites say that they are skipped. */
function buildGuests(): void {
  const { status } = spawnSync("bash", ["guests/build.sh", ...GUESTS], { stdio: "inherit" });
  if (status === 0) return;
  if (process.env["CI"]) throw new Error(`guests/build.sh ended with ${status}`);
  console.warn(`\n*** SKIPPED: every test that boots a guest; guests/build.sh ended with ${status} ***\n`);
}
