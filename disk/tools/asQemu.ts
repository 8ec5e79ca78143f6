import { FORMATS } from "../formats/registry.ts";
import { splitOptions } from "../names/pairs.ts";
import { CommandError, type Output, type VerbEntry } from "./verb.ts";

/** The release of QEMU whose tools these verbs are compared with. Programs look at it to learn what they may use. */
const RELEASE = "7.2.0";
/** What can be named besides files of some format. */
const STORAGES = ["file", "host_device", "http", "https", "nbd", "null-aio", "null-co"];

/** `qemu-img version 7.2.0 (disk86 0.1.0)`: as programs look for it. */
export function qemuVersion(name: string, version: string): string {
  return `${name} version ${RELEASE} (disk86 ${version})\n`;
}

/** What `qemu-img --help` prints: programs look for its verbs' options, and for the formats. */
export async function qemuHelp(version: string, verbs: readonly VerbEntry[]): Promise<string> {
  const syntax = await Promise.all(verbs.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(async (entry) => `  ${entry.name} ${(await entry.load()).usage}`));
  return `${qemuVersion("qemu-img", version)}usage: qemu-img [standard options] command [command options]
QEMU disk image utility, as disk86 has it

    '-h', '--help'       display this help and exit
    '-V', '--version'    output version information and exit
    '-T', '--trace'      [[enable=]<pattern>][,events=<file>][,file=<file>]
                         accepted: there are no trace events

Command syntax:
${syntax.join("\n")}

Supported formats: ${[...STORAGES, ...FORMATS.map((format) => format.name)].toSorted((a, b) => (a < b ? -1 : 1)).join(" ")}

'disk86 VERB --help' tells a verb's options, with examples.
`;
}

/** qemu-img's standard options, those before the command: what they ask for, and the rest. */
export function standardOptions(args: readonly string[], output: Output, name: string): { readonly wanted: "help" | "version" | "verb"; readonly rest: readonly string[] } {
  let at = 0;
  for (; at < args.length; at++) {
    const option = args[at] ?? "", value = /^(?:-T|--trace=)(.+)/s.exec(option)?.[1];
    if (option === "-h" || option === "--help" || option === "help") return { wanted: "help", rest: [] };
    if (option === "-V" || option === "--version") return { wanted: "version", rest: [] };
    if (value !== undefined) acceptTrace(value, output, name);
    else if (option === "-T" || option === "--trace") acceptTrace(args[++at] ?? missing(option, name), output, name);
    else break;
  }
  return { wanted: "verb", rest: args.slice(at) };
}

function missing(option: string, name: string): never {
  throw new CommandError(`missing argument for option '${option}'\nTry '${name} --help' for more information`);
}

function acceptTrace(text: string, output: Output, name: string): void {
  const [first = ""] = text.split(","), options = splitOptions(first.includes("=") ? text : `enable=${text}`);
  for (const [key] of options) if (!["enable", "events", "file"].includes(key)) throw new CommandError(`Invalid parameter '${key}'`);
  for (const [key, value] of options) if (key === "enable" && value !== "help") output.error(`${name}: warning: trace event '${value}' does not exist\n`);
}
