import { createInterface, type Interface } from "node:readline/promises";
import { SHARED } from "./arguments.ts";
import { COMMANDS, execute } from "./io/commands.ts";
import { accessOf } from "./io/control.ts";
import { Session } from "./io/session.ts";
import { complain, programName } from "./program.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, type Verb, UsageError } from "./verb.ts";

const PROMPT = "qemu-io> ";

export const io: Verb = {
  usage: "[-f FMT] [-r] [-s] [-U] [-t CACHE] [-d DISCARD] [-c COMMAND]... [FILE]",
  about: `Reads, writes and pokes at an image, with qemu-io's commands: from -c, or line by line from standard input. 'help' lists
them. The exit code is 1 if any command failed.`,
  examples: [
    ["disk86 io -c 'write -P 0xaa 0 64k' -c 'read -P 0xaa 0 64k' disk.qcow2", "write a pattern, and verify it"],
    ["disk86 io -r -c map disk.qcow2", "which ranges the image has itself"],
    ["disk86 io disk.qcow2", "a prompt for commands"],
    ["disk86 io -c 'help write'", "what a command takes"],
  ],
  options: [
    { name: "cmd", short: "c", value: "COMMAND", help: "run this command; may be given several times" },
    SHARED.format,
    { name: "read-only", short: "r", help: "open the image for reading only" },
    { name: "snapshot", short: "s", help: "changes go to memory, and are forgotten" },
    SHARED.forceShare,
    { name: "cache", short: "t", value: "MODE", help: "qemu's cache mode; with writethrough and directsync every write is durable" },
    { name: "nocache", short: "n", help: "short for -t none" },
    { name: "discard", short: "d", value: "MODE", help: "unmap (default) or ignore discards" },
    { name: "aio", short: "i", value: "MODE", help: "threads, native or io_uring: makes no difference" },
    { name: "native-aio", short: "k", help: "makes no difference" },
    { name: "misalign", short: "m", help: "makes no difference: nothing here depends on how memory is aligned" },
    { name: "copy-on-read", short: "C", help: "", refused: "make an overlay, and read it with disk86 convert" },
    { name: "trace", short: "T", value: "PATTERN", help: "", refused: "there are no trace points" },
    SHARED.imageOpts, SHARED.object,
  ],
  run: runIo,
};

const LONG: Record<string, string> = { r: "read-only", s: "snapshot", U: "force-share", n: "nocache", t: "cache", d: "discard", i: "aio", C: "copy-on-read", k: "native-aio" };

async function runIo(call: Call): Promise<number> {
  const [file, extra] = call.positionals, source = await sourceAccess(call), session = new Session(call.output, source.secrets), lines = call.values("cmd");
  if (extra !== undefined) throw new UsageError(`Unexpected argument: ${extra}`);
  const access = accessOf((flag) => call.has(LONG[flag] ?? ""), (flag) => call.value(LONG[flag] ?? ""), sourceFormat(call), source);
  if (file !== undefined) await session.open(file, access);
  const tell = (error: unknown): void => { complain(error, call.output, programName(process.argv[1] ?? "")); };
  try {
    if (lines.length > 0) for (const line of lines) await one(session, line, tell);
    else await converse(session, tell);
  } finally {
    await session.close();
  }
  return session.failed ? 1 : 0;
}

async function one(session: Session, line: string, tell: (error: unknown) => void): Promise<void> {
  if (!session.done) await execute(session, line, tell);
}

/** Reads lines from standard input; on a terminal with a history, and completion of commands. */
async function converse(session: Session, tell: (error: unknown) => void): Promise<void> {
  const terminal = process.stdin.isTTY, names = COMMANDS.map(({ name }) => name);
  const completer = (typed: string): [string[], string] => [names.filter((name) => name.startsWith(typed)), typed];
  const lines: Interface = createInterface({ input: process.stdin, ...(terminal ? { output: process.stdout, completer, terminal } : {}), prompt: PROMPT });
  const prompt = (): void => { if (terminal) lines.prompt(); else session.output.out(PROMPT); };
  prompt();
  for await (const line of lines) {
    await one(session, line, tell);
    if (session.done) break;
    prompt();
  }
  lines.close();
}
