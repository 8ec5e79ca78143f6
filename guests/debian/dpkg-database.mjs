// node dpkg-database.mjs CONTROL ROOT: writes dpkg's database as if dpkg had installed every package.
//
// CONTROL/NAME holds a package's control files and `list`, the names in its archive. In the guest `dpkg --audit` has
// nothing to say then, and apt can install and remove packages.
import { createHash } from "node:crypto";
import { copyFileSync, existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [controlRoot, root] = process.argv.slice(2);
if (controlRoot === undefined || root === undefined) {
  console.error("usage: node dpkg-database.mjs CONTROL ROOT");
  process.exit(2);
}
const database = join(root, "var/lib/dpkg");

/** @param {string} control @param {string} name of a field with a value on one line */
const field = (control, name) => new RegExp(`^${name}: (.*)$`, "m").exec(control)?.[1];

/** The status field that names each configuration file with its checksum. @param {string} dir */
function conffiles(dir) {
  if (!existsSync(join(dir, "conffiles"))) return "";
  const lines = readFileSync(join(dir, "conffiles"), "utf8")
    .split("\n")
    .filter((path) => path.startsWith("/") && existsSync(join(root, path)))
    .map((path) => ` ${path} ${createHash("md5").update(readFileSync(join(root, path))).digest("hex")}\n`);
  return lines.length > 0 ? `Conffiles:\n${lines.join("")}` : "";
}

/** Tar's `./usr/bin/` is dpkg's `/usr/bin`; the archive's root is `/.`. @param {string} list */
const installedNames = (list) => list.replaceAll(/^\.(.*?)\/?$/gm, (_, path) => path || "/.");

/** @param {string} name @returns {string} the package's entry in the status file */
function install(name) {
  const dir = join(controlRoot, name);
  const control = readFileSync(join(dir, "control"), "utf8").trimEnd();
  const shared = field(control, "Multi-Arch") === "same";
  const qualified = shared ? `${name}:${field(control, "Architecture")}` : name;
  for (const file of readdirSync(dir)) {
    if (file !== "control" && file !== "list") copyFileSync(join(dir, file), join(database, "info", `${qualified}.${file}`));
  }
  const list = installedNames(readFileSync(join(dir, "list"), "utf8").trimEnd());
  writeFileSync(join(database, "info", `${qualified}.list`), `${list}\n`);
  const status = control.replace(/^(Package: .*)$/m, "$1\nStatus: install ok installed");
  return `${status}\n${conffiles(dir)}\n`;
}

mkdirSync(join(database, "info"), { recursive: true });
mkdirSync(join(database, "updates"), { recursive: true });
writeFileSync(join(database, "info/format"), "1\n");
for (const file of ["available", "diversions", "statoverride"]) writeFileSync(join(database, file), "");
writeFileSync(join(database, "status"), readdirSync(controlRoot).sort().map(install).join(""));
