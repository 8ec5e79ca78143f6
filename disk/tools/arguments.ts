import { parseArgs, type ParseArgsConfig } from "node:util";
import { type Call, CommandError, type OptionSpec, type Output, UsageError } from "./verb.ts";

/**
 * Reads a verb's arguments as getopt does: options anywhere, an option's value may begin with a dash, `--` ends them.
 * With `lastIsOperand` the last argument is none of them, but for the one that asks for help.
 */
export function parseArguments(all: readonly string[], specs: readonly OptionSpec[], output: Output, lastIsOperand = false): Call {
  const last = lastIsOperand && !["-h", "--help"].includes(all.at(-1) ?? "") ? all.slice(-1) : [], args = all.slice(0, all.length - last.length);
  const { tokens } = parseArgs({ args, options: toNode(specs), strict: false, allowPositionals: true, tokens: true });
  const given = new Map<string, string[]>(), order: [string, string][] = [], positionals: string[] = [];
  for (const token of tokens) {
    if (token.kind === "positional") positionals.push(token.value);
    if (token.kind !== "option") continue;
    const spec = specs.find(({ name, short }) => (token.rawName.startsWith("--") ? name === token.name : name === token.name || short === token.name));
    if (spec === undefined) throw new UsageError(`unrecognized option '${token.rawName}'`);
    if (spec.refused !== undefined) throw new CommandError(`${token.rawName} is not supported: ${spec.refused}`);
    if (spec.value !== undefined && token.value === undefined) throw new UsageError(`missing argument for option '${token.rawName}'`);
    if (spec.value === undefined && token.value !== undefined) throw new UsageError(`option '${token.rawName}' takes no argument`);
    order.push([spec.name, token.value ?? ""]);
    given.set(spec.name, [...(given.get(spec.name) ?? []), token.value ?? ""]);
  }
  return {
    positionals: [...positionals, ...last], output, given: order,
    has: (name) => given.has(name),
    value: (name) => given.get(name)?.at(-1),
    values: (name) => given.get(name) ?? [],
  };
}

function toNode(specs: readonly OptionSpec[]): NonNullable<ParseArgsConfig["options"]> {
  return Object.fromEntries(specs.map(({ name, short, value }) => [name, { type: value === undefined ? "boolean" : "string", multiple: true, ...(short === undefined ? {} : { short }) }]));
}

/** The one image that a verb takes. */
export function onlyFile({ positionals }: Call): string {
  const [file] = positionals;
  if (file === undefined || positionals.length > 1) throw new UsageError("Expecting one image file name");
  return file;
}

/** The cache modes of qemu-img. */
export const CACHES = new Set(["none", "off", "writeback", "writethrough", "unsafe", "directsync"]);

/** Looks at `-T`, which nothing depends on. */
export function checkSourceCache(call: Call, exitCode = 1): void {
  const cache = call.value("source-cache") ?? "none";
  if (!CACHES.has(cache)) throw new CommandError(`Invalid source cache option: ${cache}`, exitCode);
}

/** Looks at `-t`: what is written is durable when a verb ends, whatever it says. */
export function checkCache(call: Call): void {
  const cache = call.value("cache") ?? "writeback";
  if (!CACHES.has(cache)) throw new CommandError(`Invalid cache option: ${cache}`);
}

/** `--output`. */
export function outputFormat(call: Call): "human" | "json" {
  const wanted = call.value("output") ?? "human";
  if (wanted !== "human" && wanted !== "json") throw new CommandError("--output must be used with human or json as argument.");
  return wanted;
}

/** The options that several verbs share. */
export const SHARED = {
  format: { name: "format", short: "f", value: "FMT", help: "the image's format; without it, it is probed" },
  output: { name: "output", value: "human|json", help: "how to print: for people, or QEMU's JSON" },
  forceShare: { name: "force-share", short: "U", help: "open it even while another program writes it: what is seen may be torn" },
  quiet: { name: "quiet", short: "q", help: "print only errors" },
  progress: { name: "progress", short: "p", help: "print how far it is, in percents" },
  cache: { name: "cache", short: "t", value: "MODE", help: "qemu-img's cache mode: accepted, makes no difference" },
  sourceCache: { name: "source-cache", short: "T", value: "MODE", help: "qemu-img's cache mode: accepted, makes no difference" },
  imageOpts: { name: "image-opts", help: "the image is named by options: driver=qcow2,file.filename=x,backing.driver=raw" },
  object: { name: "object", value: "DEFINITION", help: "a password: secret,id=ID,file=FILE, named by encrypt.key-secret=ID" },
  help: { name: "help", short: "h", help: "this" },
} as const satisfies Record<string, OptionSpec>;
