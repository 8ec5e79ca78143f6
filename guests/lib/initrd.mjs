// node initrd.mjs MODULES BUSYBOX INIT OUT: an initial RAM disk (cpio, "newc") of busybox, /init and kernel modules.
//
// INIT is a shell script; in its lines `insert @NAME ...` the modules are replaced by themselves and all they depend
// on, in the order to load them. MODULES is a tree that holds them as .ko files; what is used of it goes to /lib.
import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";

const DIRECTORY = 0o040755;
const PROGRAM = 0o100755;
const PLAIN = 0o100644;

/** Module names are written with - and _ alike. @param {string} name */
const canonical = (name) => name.replaceAll("-", "_");

/** @param {string} root @returns {Map<string, string>} path of each module below `root`, by name */
function findModules(root) {
  const files = readdirSync(root, { recursive: true }).map(String).filter((file) => file.endsWith(".ko"));
  return new Map(files.map((file) => [canonical(basename(file, ".ko")), join(root, file)]));
}

const SIGNATURE_MAGIC = "~Module signature appended~\n";
/** The end of the structure between a signature and the magic: the signature's length, big-endian. */
const SIGNATURE_INFO = 12;

/**
 * A module without its signature. The guests' kernels take unsigned modules; checking a signature hashes the whole
 * module first, which in an emulator is a good part of loading it. @param {Buffer} module
 */
function withoutSignature(module) {
  const info = module.length - SIGNATURE_MAGIC.length - SIGNATURE_INFO;
  if (!module.subarray(info + SIGNATURE_INFO).equals(Buffer.from(SIGNATURE_MAGIC))) return module;
  return module.subarray(0, info - module.readUInt32BE(info + SIGNATURE_INFO - 4));
}

/** Finds modules with what they depend on. */
class Modules {
  /** @param {string} root */
  constructor(root) {
    this.paths = findModules(root);
    /** @type {Map<string, Buffer>} every module asked for so far */
    this.used = new Map();
  }

  /** @param {string} name @param {string[]} order grows by `name`, after its dependencies */
  collect(name, order) {
    const module = canonical(name);
    if (order.includes(module)) return;
    const path = this.paths.get(module);
    if (path === undefined) throw new Error(`the kernel has no module ${name}`);
    const bytes = withoutSignature(readFileSync(path));
    const depends = /\0depends=([^\0]*)\0/.exec(bytes.toString("latin1"))?.[1] ?? "";
    for (const dependency of depends.split(",").filter(Boolean)) this.collect(dependency, order);
    order.push(module);
    this.used.set(module, bytes);
  }

  /** @param {string} names each with its @ @returns {string} the names of all that is to be loaded, in order */
  inOrder(names) {
    /** @type {string[]} */
    const order = [];
    for (const [, name = ""] of names.matchAll(/@(\w+)/g)) this.collect(name, order);
    return order.join(" ");
  }
}

/** One entry of a newc archive: owner root, no time. @param {number} ino @param {string} name @param {number} mode @param {Buffer} data */
function entry(ino, name, mode, data) {
  const links = mode === DIRECTORY ? 2 : 1;
  const fields = [ino, mode, 0, 0, links, 0, data.length, 0, 0, 0, 0, name.length + 1, 0];
  const head = Buffer.from(`070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}${name}\0`);
  const pad = (/** @type {number} */ length) => Buffer.alloc((4 - (length % 4)) % 4);
  return Buffer.concat([head, pad(head.length), data, pad(data.length)]);
}

const [moduleRoot, busybox, initScript, out] = process.argv.slice(2);
if (moduleRoot === undefined || busybox === undefined || initScript === undefined || out === undefined) {
  console.error("usage: node initrd.mjs MODULES BUSYBOX INIT OUT");
  process.exit(2);
}
const modules = new Modules(moduleRoot);
const init = readFileSync(initScript, "utf8").replaceAll(/(?<=insert )@[\w @]+\b/g, (names) => modules.inOrder(names));
const none = Buffer.alloc(0);
const entries = [
  ...["bin", "dev", "lib", "mnt", "proc", "sys"].map((name) => /** @type {const} */ ([name, DIRECTORY, none])),
  /** @type {const} */ (["bin/busybox", PROGRAM, readFileSync(busybox)]),
  /** @type {const} */ (["init", PROGRAM, Buffer.from(init)]),
  ...[...modules.used].map(([name, bytes]) => /** @type {const} */ ([`lib/${name}.ko`, PLAIN, bytes])),
];
const archive = entries.map(([name, mode, data], index) => entry(index + 1, name, mode, data));
writeFileSync(out, Buffer.concat([...archive, entry(0, "TRAILER!!!", 0, none)]));
