import { DiskError } from "../errors.ts";
import { SliceStorage } from "../filters/slice.ts";
import type { Format } from "../formats/format.ts";
import type { InfoObject } from "../formats/info.ts";
import { FORMATS } from "../formats/registry.ts";
import type { BackingChoice, NamedImage } from "../gate.ts";
import { openDisk, probed } from "../open.ts";
import type { Storage } from "../storage.ts";
import { run } from "../task.ts";
import type { NameAccess } from "./access.ts";
import { takeCommon, takeFormatOptions } from "./formatOptions.ts";
import { toJsonLine } from "./json.ts";
import { isNbd, parseNbdName } from "./nbd.ts";
import { NodeOptions, optionsFromJson } from "./options.ts";
import { fullName, isHttp, resolveName } from "./paths.node.ts";
import { PROTOCOLS } from "./protocols.node.ts";

/** A node that options led to, still without what it stands on. */
export interface NamedNode extends NamedImage {
  /** The format's name; where no format was told, the one that was probed. */
  readonly driver: string;
  /** It is bytes without a format: the driver that it was opened with. */
  readonly protocol?: string | undefined;
  /** A plain name where one says all, else `json:{...}`. */
  readonly title: string;
  /** All options that tell it from other nodes. */
  readonly options: InfoObject;
}

const invalid = (what: string): DiskError => new DiskError("invalid-argument", what);
const noSuchNode = (name: string): DiskError => invalid(`Cannot find device='${name}' nor node-name='${name}': only files can be named`);

/** The options that a name means: those within it for `json:`, and for all others the file or address. `driver` wins over what the name says. */
export function optionsOfName(name: string, driver?: string): NodeOptions {
  const options = namedOptions(name);
  if (driver !== undefined) {
    options.take("driver");
    options.setDefault("driver", driver);
  }
  return options;
}

function namedOptions(name: string): NodeOptions {
  if (name.startsWith("json:")) return optionsFromJson(name.slice("json:".length));
  const [, protocol = "", rest = ""] = /^([^/:]{2,}):(.*)$/s.exec(name) ?? [];
  if (protocol === "null-co" || protocol === "null-aio") return new NodeOptions([["file.driver", protocol]]);
  if (protocol === "host_device") return new NodeOptions([["file.driver", protocol], ["file.filename", rest]]);
  if (isNbd(name)) return nbdOptions(name);
  const plain = resolveName(name, "");
  return isHttp(plain) ? new NodeOptions([["file.driver", new URL(plain).protocol.slice(0, -1)], ["file.url", plain]]) : new NodeOptions([["file.driver", "file"], ["file.filename", plain]]);
}

function nbdOptions(name: string): NodeOptions {
  const { server, export: exported } = parseNbdName(name);
  return new NodeOptions([["file.driver", "nbd"], ...Object.entries(server).map(([key, value]): [string, string] => [`file.server.${key}`, value]), ...(exported === undefined ? [] : [["file.export", exported] as [string, string]])]);
}

/** Opens the node that `options` describe, and the files it consists of. The caller closes its storage. */
export async function openNode(options: NodeOptions, given: NameAccess): Promise<NamedNode> {
  const { readOnly, forceShare } = takeCommon(options), driver = options.string("driver");
  if (readOnly === true && given.writable === true) throw new DiskError("read-only", "Block node is read-only");
  const access = { ...given, lock: given.lock && forceShare !== true };
  if (driver !== undefined && Object.hasOwn(PROTOCOLS, driver)) return await openProtocol(driver, options, access);
  const told = driver === undefined ? undefined : formatOf(driver);
  const file = await openFileNode(options, driver, access);
  try {
    return await openFormat(told ?? (await run(probed(file.storage))), told !== undefined, file, options, access);
  } catch (error) {
    await file.storage.close();
    throw error;
  }
}

// oxlint-disable-next-line require-await -- a failure is a rejection
async function openFormat(format: Format, told: boolean, file: FileNode, options: NodeOptions, access: NameAccess): Promise<NamedNode> {
  const key = takeFormatOptions(options, format, access.secrets);
  const { storage, window } = format.name === "raw" ? rawWindow(options, file.storage) : { storage: file.storage, window: {} };
  const backing = backingChoice(options, format, storage, access);
  options.finish(format.name, false);
  const strong = { ...window, ...(key === undefined ? {} : { "encrypt.key-secret": key.id }) };
  const all = { driver: format.name, ...strong, file: file.options }, plain = file.protocol !== undefined && Object.keys(strong).length === 0;
  return { storage, format: told ? format.name : undefined, driver: format.name, backing, secret: key?.secret, title: plain ? file.title : titleOf(all), options: all };
}

/** As QEMU writes it. */
function titleOf(options: InfoObject): string {
  return `json:${toJsonLine(options)}`;
}

async function openProtocol(driver: string, options: NodeOptions, access: NameAccess): Promise<NamedNode> {
  const { storage, options: strong, title = titleOf(strong) } = await (PROTOCOLS[driver] as (typeof PROTOCOLS)[string])(options, access, driver);
  try {
    options.finish(driver, true);
  } catch (error) {
    await storage.close();
    throw error;
  }
  return { storage, format: "raw", driver: "raw", protocol: driver, title, options: strong };
}

function formatOf(driver: string): Format {
  const format = FORMATS.find(({ name }) => name === driver);
  if (format === undefined) throw new DiskError("unsupported", `Unknown driver '${driver}'; known are ${[...Object.keys(PROTOCOLS), ...FORMATS.map(({ name }) => name)].join(", ")}`);
  return format;
}

type FileNode = Pick<NamedNode, "storage" | "protocol" | "title" | "options">;

/** The node `file` below a format's driver, as bytes: a file, or a disk of yet another image. */
async function openFileNode(options: NodeOptions, driver: string | undefined, access: NameAccess): Promise<FileNode> {
  const reference = options.take("file");
  if (typeof reference === "string") throw noSuchNode(reference);
  const child = options.child("file");
  if (child.empty) throw invalid(driver === undefined ? "Must specify either driver or file" : 'A block device must be specified for "file"');
  if (child.has("filename")) child.setDefault("driver", "file");
  const node = await openNode(child, access);
  return node.driver === "raw" ? node : { ...node, storage: await diskOf(node, access) };
}

/** The node that `options` describe as bytes: a file, or what a guest would read of an image. */
export async function openStorage(options: NodeOptions, access: NameAccess): Promise<Storage> {
  const node = await openNode(options, access);
  return node.driver === "raw" ? node.storage : await diskOf(node, access);
}

async function diskOf({ storage, driver, backing, secret }: NamedNode, { writable = false, gate }: NameAccess): Promise<Storage> {
  try {
    return await run(openDisk(storage, { format: driver, readOnly: !writable, gate, backing, secret }));
  } catch (error) {
    await storage.close();
    throw error;
  }
}

/** `offset` and `size`: the part of a file that is the disk. */
function rawWindow(options: NodeOptions, file: Storage): { storage: Storage; window: InfoObject } {
  const told = Object.fromEntries(options.entries().filter(([name]) => name === "offset" || name === "size")) as InfoObject;
  const offset = options.size("offset") ?? 0, size = options.size("size");
  if (offset > file.size) throw invalid(`Offset (${offset}) cannot be greater than size of the containing file (${file.size})`);
  if (size !== undefined && offset + size > file.size) throw invalid(`The sum of offset (${offset}) and size (${size}) has to be smaller or equal to the actual size of the containing file (${file.size})`);
  if (size !== undefined && size % 512 !== 0) throw invalid("Specified size is not multiple of 512");
  return { storage: offset === 0 && size === undefined ? file : new SliceStorage(file, offset, size ?? file.size - offset, size === undefined), window: told };
}

/** What the options say of the node `backing`. */
function backingChoice(options: NodeOptions, { name, creation }: Format, from: Storage, access: NameAccess): BackingChoice | undefined {
  const reference = options.take("backing");
  if (reference === null || reference === "") return false;
  if (typeof reference === "string") throw noSuchNode(reference);
  const child = options.child("backing");
  if (child.empty) return undefined;
  if (creation?.options.some((option) => option.name === "backing_file") !== true) throw new DiskError("unsupported", `Driver ${name} doesn't support backing files`);
  return async (named, readOnly = true) => {
    if (named !== undefined && !child.has("file") && !child.hasChild("file")) {
      for (const [key, value] of optionsOfName(fullName(named.file, from.name)).entries()) child.setDefault(key, value);
    }
    if (named?.format !== undefined) child.setDefault("driver", named.format);
    return await openNode(child, { ...access, writable: !readOnly });
  };
}
