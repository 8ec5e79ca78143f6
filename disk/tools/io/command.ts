import type { Given } from "./flags.ts";
import type { Session } from "./session.ts";

/** One of qemu-io's commands. */
export interface Command {
  readonly name: string;
  readonly alias?: string;
  /** What follows its name, for its usage line. */
  readonly args: string;
  /** What it does, in a line. */
  readonly oneline: string;
  /** What `help NAME` adds. */
  readonly help?: string;
  /** How many words may follow the name, flags and their values included. */
  readonly least: number;
  readonly most: number;
  /** Its flags as getopt is told of them: a letter, and a colon behind one that has a value. Absent: what begins with a dash is a word. */
  readonly flags?: string;
  /** It works without an open image. */
  readonly fileless?: boolean;
  /** It changes the image, or asks to be let do so. */
  readonly changes?: boolean;
  run(session: Session, given: Given): void | Promise<void>;
}

/** A command that failed, in the words for the user; qemu-io prints most of them to standard output. */
export class Failed extends Error {
  override readonly name = "Failed";
  constructor(message: string, readonly to: "out" | "error" = "out", options?: ErrorOptions) {
    super(message, options);
  }
}

/** The words of a command do not fit together: its usage is shown. */
export class Misused extends Error {
  override readonly name = "Misused";
}

export const usageOf = ({ name, args, oneline }: Command): string => `${name} ${args} -- ${oneline}\n`;
