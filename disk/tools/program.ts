import { DiskError, type DiskErrorKind } from "../errors.ts";
import { parseArguments, SHARED } from "./arguments.ts";
import { CommandError, type OptionSpec, type Output, UsageError, type Verb, type VerbEntry } from "./verb.ts";

/** What a program calls itself. Through a link that bears the name of one of QEMU's tools it answers as that tool. */
export type ProgramName = "disk86" | "qemu-img" | "qemu-io";

export interface Program {
  readonly version: string;
  readonly verbs: readonly VerbEntry[];
  /** Default: `disk86`. */
  readonly name?: ProgramName;
}

/** The name that a path to the program gives it. */
export function programName(path: string): ProgramName {
  const [, name] = /([^/\\]+?)(?:\.exe|\.js)?$/.exec(path) ?? [];
  return name === "qemu-img" || name === "qemu-io" ? name : "disk86";
}

/** Runs one command line to its exit code. Everything it has to say goes through `output`. */
export async function runProgram(program: Program, args: readonly string[], output: Output): Promise<number> {
  const { name = "disk86" } = program;
  try {
    return name === "disk86" ? await runOwn(program, args, output) : await runAsQemu(program, name, args, output);
  } catch (error) {
    return complain(error, output, name);
  }
}

async function runOwn({ version, verbs }: Program, args: readonly string[], output: Output): Promise<number> {
  const [first = "", ...rest] = args;
  if (first === "--version" || first === "-V") return say(output, `disk86 ${version}\n`);
  if (first === "--help" || first === "-h" || first === "help") {
    const verb = verbs.find(({ name }) => name === rest[0]);
    return say(output, verb === undefined ? overview(verbs) : verbHelp(`disk86 ${verb.name}`, await verb.load()));
  }
  const entry = await find(verbs, first), help = async (): Promise<string> => verbHelp(`disk86 ${entry.name}`, await entry.load());
  return await runEntry(entry, rest, output, `disk86 ${entry.name} --help`, help);
}

async function runAsQemu({ version, verbs }: Program, name: "qemu-img" | "qemu-io", args: readonly string[], output: Output): Promise<number> {
  const { qemuHelp, qemuVersion, standardOptions } = await import("./asQemu.ts");
  const mine = verbs.filter((verb) => (verb.qemu ?? "qemu-img") === name), io = name === "qemu-io" ? mine[0] : undefined;
  const help = async (): Promise<string> => (io === undefined ? await qemuHelp(version, mine) : verbHelp(name, await io.load()));
  const { wanted, rest } = standardOptions(args, output, name);
  if (wanted === "version") return say(output, qemuVersion(name, version));
  if (wanted === "help") return say(output, await help());
  // qemu-io is one verb, without a name.
  const [first = "", ...own] = io === undefined ? rest : ["", ...rest], entry = io ?? mine.find((verb) => verb.name === first);
  if (entry !== undefined) return await runEntry(entry, own, output, `${name} --help`, help);
  const what = first === "" ? "Not enough arguments" : first.startsWith("-") ? `unrecognized option '${first}'` : `Command not found: ${first}`;
  throw new CommandError(`${what}\nTry '${name} --help' for more information`);
}

async function runEntry(entry: VerbEntry, args: readonly string[], output: Output, more: string, help: () => Promise<string>): Promise<number> {
  const verb = await entry.load();
  try {
    const call = parseArguments(args, [...verb.options, SHARED.help], output, verb.lastIsOperand);
    return call.has("help") ? say(output, await help()) : await verb.run(call);
  } catch (error) {
    if (error instanceof UsageError) throw new CommandError(`${error.message}\nTry '${more}' for more information`, 1, { cause: error });
    throw error;
  }
}

function say(output: Output, text: string): number {
  output.out(text);
  return 0;
}

async function find(verbs: readonly VerbEntry[], name: string): Promise<VerbEntry> {
  const entry = verbs.find((verb) => verb.name === name);
  if (entry !== undefined) return entry;
  if (name === "") throw new CommandError(`Not enough arguments\nTry 'disk86 --help' for more information`);
  if (name.startsWith("-")) throw new CommandError(`unrecognized option '${name}'\nTry 'disk86 --help' for more information`);
  const close = await suggestions(name, verbs);
  throw new CommandError(`Command not found: ${name}${close.length > 0 ? `; did you mean ${close.join(" or ")}?` : ""}\nTry 'disk86 --help' for more information`);
}

/** Verbs that may have been meant: one beginning with the other, or at most two letters changed, added, left out. */
async function suggestions(typed: string, verbs: readonly VerbEntry[]): Promise<string[]> {
  const { distance } = await import("fastest-levenshtein");
  const begins = (name: string): boolean => typed.length > 1 && (name.startsWith(typed) || typed.startsWith(name));
  return verbs.map(({ name }) => name).filter((name) => begins(name) || distance(typed, name) <= Math.min(2, name.length / 2));
}

/** One line that says what happened and what to do; a stack only for those who ask for it. */
export function complain(error: unknown, output: Output, name: ProgramName = "disk86"): number {
  const known = error instanceof DiskError || error instanceof CommandError;
  const message = name !== "disk86" && error instanceof DiskError ? inQemusWords(error) : known ? error.message : `internal error: ${error instanceof Error ? error.message : String(error)} (set DISK86_DEBUG=1 for the stack, and please report this)`;
  for (const line of message.split("\n")) output.error(`${/^(Try '|Is another )/.test(line) ? "" : `${name}: `}${line}\n`);
  if (process.env["DISK86_DEBUG"]) output.error(`${error instanceof Error ? describeStack(error) : ""}\n`);
  return error instanceof CommandError ? error.exitCode : 1;
}

/** Programs look for the beginning of what QEMU says. */
function inQemusWords(error: DiskError): string {
  const { path, operation } = error.context;
  if (path === undefined || (operation !== "open" && operation !== "lock")) return error.message;
  const shared = error.what.startsWith("being written") ? "shared " : "";
  const known: Partial<Record<DiskErrorKind, string>> = { "not-found": `Could not open '${path}': No such file or directory`, "locked": `Failed to get ${shared}"write" lock\nIs another process using the image [${path}]?` };
  return `Could not open '${path}': ${known[error.kind] ?? error.what}`;
}

function describeStack(error: Error): string {
  const { cause } = error;
  return `${error.stack ?? String(error)}${cause instanceof Error ? `\ncaused by ${describeStack(cause)}` : ""}`;
}

function overview(verbs: readonly VerbEntry[]): string {
  const width = Math.max(...verbs.map(({ name }) => name.length));
  return `disk86: real disk images, and a PC in v86 that boots them

usage: disk86 VERB [options] FILE

${verbs.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`).join("\n")}

'disk86 VERB --help' tells a verb's options, with examples. Verbs and options are qemu-img's where it has them.
'disk86 --version' tells the version. DISK86_DEBUG=1 shows where an error comes from.
`;
}

/** `title`: how the verb is called here, `disk86 create`; its examples are told so, too. */
function verbHelp(title: string, verb: Verb): string {
  const options = [...verb.options, SHARED.help as OptionSpec].filter((one) => one.refused === undefined);
  const spelled = options.map(({ name, short, value }) => `${short === undefined ? "   " : `-${short},`} --${name}${value === undefined ? "" : ` ${value}`}`);
  const width = Math.min(32, Math.max(...spelled.map((text) => text.length)));
  const commands = verb.examples.map(([command]) => (title === "qemu-io" ? command.replace("disk86 io", title) : command)), examples = Math.max(...commands.map((text) => text.length));
  return `usage: ${title} ${verb.usage}

${verb.about}

${options.map(({ help }, index) => `  ${(spelled[index] ?? "").padEnd(width)}  ${help}`).join("\n")}

Examples:
${verb.examples.map(([, meaning], index) => `  ${(commands[index] ?? "").padEnd(examples)}  # ${meaning}`).join("\n")}
`;
}
