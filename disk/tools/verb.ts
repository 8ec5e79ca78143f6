/** An option of a verb, with qemu-img's names. */
export interface OptionSpec {
  /** The long name, without dashes. */
  readonly name: string;
  readonly short?: string;
  /** What its value is called in the help; absent: a switch. */
  readonly value?: string;
  readonly help: string;
  /** An option of qemu-img's that is refused, with this cure. */
  readonly refused?: string;
}

/** Where a verb writes, and what it knows of who reads it. Tests give their own. */
export interface Output {
  /** What the program calls itself; default `disk86`. */
  readonly name?: string;
  out(text: string): void;
  error(text: string): void;
  /** Whether a person watches what goes to `error`. */
  readonly watched: boolean;
}

/** What a verb was called with. */
export interface Call {
  readonly positionals: readonly string[];
  has(option: string): boolean;
  /** The last value given. */
  value(option: string): string | undefined;
  values(option: string): readonly string[];
  /** Every option with its value, in the order in which they were given. */
  readonly given: readonly (readonly [option: string, value: string])[];
  readonly output: Output;
}

/** One verb of the command line: one file, loaded when it is called. */
export interface Verb {
  /** What follows its name: `[-f FMT] FILE`. */
  readonly usage: string;
  /** What it does, in a paragraph. */
  readonly about: string;
  readonly examples: readonly (readonly [command: string, meaning: string])[];
  readonly options: readonly OptionSpec[];
  /** The last argument is no option even if it looks like one: `-5G`. */
  readonly lastIsOperand?: boolean;
  /** The exit code. */
  run(call: Call): number | Promise<number>;
}

/** What the program knows of a verb without loading it. */
export interface VerbEntry {
  readonly name: string;
  readonly summary: string;
  /** Which of QEMU's tools it belongs to; default qemu-img. */
  readonly qemu?: "qemu-io" | "none";
  load(): Promise<Verb>;
}

/** The command was typed wrongly: answered with a pointer to the help. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** Something failed that the user is told of in one line. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  constructor(message: string, readonly exitCode = 1, options?: ErrorOptions) {
    super(message, options);
  }
}
