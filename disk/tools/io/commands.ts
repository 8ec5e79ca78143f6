import { DiskError } from "../../errors.ts";
import { CommandError } from "../verb.ts";
import * as change from "./change.ts";
import { type Command, Failed, Misused, usageOf } from "./command.ts";
import * as control from "./control.ts";
import { plainWords, readFlags } from "./flags.ts";
import * as inspect from "./inspect.ts";
import { aioRead, read, readv } from "./read.ts";
import type { Session } from "./session.ts";
import { aioWrite, write, writev } from "./write.ts";

const help: Command = {
  name: "help", alias: "?", args: "[command]", oneline: "help for one or all commands", least: 0, most: 1, fileless: true,
  run({ output }, { words: [name] }) {
    if (name === undefined) return output.out(`${COMMANDS.map(usageOf).join("")}\nUse 'help commandname' for extended help.\n`);
    const command = find(name);
    if (command === undefined) throw new Failed(`command ${name} not found`);
    output.out(usageOf(command) + (command.help ?? ""));
  },
};

/** Every command, by name. */
export const COMMANDS: readonly Command[] = [
  read, readv, aioRead, write, writev, aioWrite, change.discard, change.flush, change.aioFlush, change.truncate,
  inspect.alloc, inspect.map, inspect.length, inspect.info,
  control.open, control.reopen, control.close, control.quit, control.sleep, control.sigraise, control.abort, ...control.BREAKPOINTS, help,
].toSorted((a, b) => (a.name < b.name ? -1 : 1));

const find = (name: string): Command | undefined => COMMANDS.find((command) => command.name === name || command.alias === name);

/** Runs one line of commands. Everything is told through the session; `complain` tells of an error as the program does. */
export async function execute(session: Session, line: string, complain: (error: unknown) => void): Promise<void> {
  const [name, ...words] = line.split(" ").filter((word) => word !== "");
  if (name === undefined) return;
  const command = find(name);
  try {
    if (command === undefined) throw new Failed(`command "${name}" not found`, "error");
    await runCommand(session, command, name, words);
  } catch (error) {
    session.failed = true;
    if (error instanceof Misused) {
      if (error.message !== "") session.output.error(`${error.message}\n`);
      if (command !== undefined) session.output.out(usageOf(command));
    } else if (error instanceof CommandError || error instanceof DiskError) complain(error);
    else session.complain(error);
  }
}

async function runCommand(session: Session, command: Command, typed: string, words: readonly string[]): Promise<void> {
  const { least, most, flags } = command, count = words.length;
  if (command.fileless !== true) void session.disk;
  if (count < least || count > most) {
    const expected = most === Infinity ? `at least ${least}` : most === least ? String(least) : `between ${least} and ${most}`;
    throw new Failed(`bad argument count ${count} to ${typed}, expected ${expected} arguments`, "error");
  }
  if (command.changes === true && session.disk.readOnly) throw new CommandError("Block node is read-only");
  await command.run(session, flags === undefined ? plainWords(words) : readFlags(typed, words, flags));
}
