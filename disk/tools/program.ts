import { DiskError } from "../errors.ts";
import { parseArguments, SHARED } from "./arguments.ts";
import { type Call, CommandError, type OptionSpec, type Output, UsageError, type Verb, type VerbEntry } from "./verb.ts";

const PROGRAM = "disk86";

export interface Program {
  readonly version: string;
  readonly verbs: readonly VerbEntry[];
}

/** Runs one command line to its exit code. Everything it has to say goes through `output`. */
export async function runProgram({ version, verbs }: Program, args: readonly string[], output: Output): Promise<number> {
  const [first = "", ...rest] = args;
  if (first === "--version" || first === "-V") return say(output, `${PROGRAM} ${version}\n`);
  if (first === "--help" || first === "-h" || first === "help") {
    const verb = verbs.find(({ name }) => name === rest[0]);
    return say(output, verb === undefined ? overview(verbs) : verbHelp(verb.name, await verb.load()));
  }
  try {
    const entry = await find(verbs, first);
    const verb = await entry.load();
    try {
      const call = parseArguments(rest, [...verb.options, SHARED.help], output, verb.lastIsOperand);
      return call.has("help") ? say(output, verbHelp(entry.name, verb)) : await runVerb(verb, call);
    } catch (error) {
      if (error instanceof UsageError) throw new CommandError(`${error.message}\nTry '${PROGRAM} ${entry.name} --help' for more information`, 1, { cause: error });
      throw error;
    }
  } catch (error) {
    return complain(error, output);
  }
}

async function runVerb(verb: Verb, call: Call): Promise<number> {
  return await verb.run(call);
}

function say(output: Output, text: string): number {
  output.out(text);
  return 0;
}

async function find(verbs: readonly VerbEntry[], name: string): Promise<VerbEntry> {
  const entry = verbs.find((verb) => verb.name === name);
  if (entry !== undefined) return entry;
  if (name === "") throw new CommandError(`Not enough arguments\nTry '${PROGRAM} --help' for more information`);
  if (name.startsWith("-")) throw new CommandError(`unrecognized option '${name}'\nTry '${PROGRAM} --help' for more information`);
  const close = await suggestions(name, verbs);
  throw new CommandError(`Command not found: ${name}${close.length > 0 ? `; did you mean ${close.join(" or ")}?` : ""}\nTry '${PROGRAM} --help' for more information`);
}

/** Verbs that may have been meant: one beginning with the other, or at most two letters changed, added, left out. */
async function suggestions(typed: string, verbs: readonly VerbEntry[]): Promise<string[]> {
  const { distance } = await import("fastest-levenshtein");
  const begins = (name: string): boolean => typed.length > 1 && (name.startsWith(typed) || typed.startsWith(name));
  return verbs.map(({ name }) => name).filter((name) => begins(name) || distance(typed, name) <= Math.min(2, name.length / 2));
}

/** One line that says what happened and what to do; a stack only for those who ask for it. */
export function complain(error: unknown, output: Output): number {
  const known = error instanceof DiskError || error instanceof CommandError;
  const message = known ? error.message : `internal error: ${error instanceof Error ? error.message : String(error)} (set DISK86_DEBUG=1 for the stack, and please report this)`;
  for (const line of message.split("\n")) output.error(`${line.startsWith("Try '") ? "" : `${PROGRAM}: `}${line}\n`);
  if (process.env["DISK86_DEBUG"]) output.error(`${error instanceof Error ? describeStack(error) : ""}\n`);
  return error instanceof CommandError ? error.exitCode : 1;
}

function describeStack(error: Error): string {
  const { cause } = error;
  return `${error.stack ?? String(error)}${cause instanceof Error ? `\ncaused by ${describeStack(cause)}` : ""}`;
}

function overview(verbs: readonly VerbEntry[]): string {
  const width = Math.max(...verbs.map(({ name }) => name.length));
  return `${PROGRAM}: real disk images, and a PC in v86 that boots them

usage: ${PROGRAM} VERB [options] FILE

${verbs.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`).join("\n")}

'${PROGRAM} VERB --help' tells a verb's options, with examples. Verbs and options are qemu-img's where it has them.
'${PROGRAM} --version' tells the version. DISK86_DEBUG=1 shows where an error comes from.
`;
}

function verbHelp(name: string, verb: Verb): string {
  const options = [...verb.options, SHARED.help as OptionSpec].filter((one) => one.refused === undefined);
  const spelled = options.map(({ name, short, value }) => `${short === undefined ? "   " : `-${short},`} --${name}${value === undefined ? "" : ` ${value}`}`);
  const width = Math.min(32, Math.max(...spelled.map((text) => text.length)));
  const commands = verb.examples.map(([command]) => command), examples = Math.max(...commands.map((text) => text.length));
  return `usage: ${PROGRAM} ${name} ${verb.usage}

${verb.about}

${options.map(({ help }, index) => `  ${(spelled[index] ?? "").padEnd(width)}  ${help}`).join("\n")}

Examples:
${verb.examples.map(([command, meaning]) => `  ${command.padEnd(examples)}  # ${meaning}`).join("\n")}
`;
}
