import { type ChildProcessWithoutNullStreams, spawn } from "node:child_process";
import { join } from "node:path";

/** The built command line. */
export const DISK86 = join(process.cwd(), "dist/node/disk86.js");

/** A guest in `disk86 boot`, with its serial console on our pipes. */
export class Terminal {
  readonly #child: ChildProcessWithoutNullStreams;
  #output = "";
  #errors = "";
  #seen = 0;
  readonly #ended: Promise<number | NodeJS.Signals>;

  constructor(args: readonly string[], cwd?: string) {
    this.#child = spawn(process.execPath, [DISK86, "boot", ...args], { cwd, stdio: ["pipe", "pipe", "pipe"] });
    this.#child.stdout.setEncoding("utf8").on("data", (text: string) => { this.#output += text; });
    this.#child.stderr.setEncoding("utf8").on("data", (text: string) => { this.#errors += text; });
    // A guest that was killed no longer reads; that is not this side's failure.
    this.#child.stdin.on("error", () => undefined);
    this.#ended = new Promise((resolve) => { this.#child.on("exit", (code, signal) => { resolve(signal ?? code ?? -1); }); });
  }

  /** Everything the guest has said so far. */
  get output(): string {
    return this.#output;
  }

  get errors(): string {
    return this.#errors;
  }

  send(text: string): void {
    this.#child.stdin.write(text);
  }

  /** Waits until the guest says `text`, after what an earlier wait found. */
  async expect(text: string, timeout = 120_000): Promise<void> {
    const deadline = Date.now() + timeout;
    for (;;) {
      const at = this.#output.indexOf(text, this.#seen);
      if (at >= 0) {
        this.#seen = at + text.length;
        return;
      }
      if (Date.now() > deadline || this.#child.exitCode !== null) {
        throw new Error(`no ${JSON.stringify(text)} from the guest (exit ${this.#child.exitCode}); it said:\n${this.#output.slice(-2000)}\n${this.#errors}`);
      }
      await new Promise((resolve) => { setTimeout(resolve, 20); });
    }
  }

  /** Runs a shell command in the guest; answers when it is done. The mark is split so that the echo does not contain it. */
  async run(command: string, timeout?: number): Promise<string> {
    const from = this.#output.length;
    this.send(`${command}; echo DO''NE=$?\n`);
    await this.expect("DONE=", timeout);
    return this.#output.slice(from);
  }

  async kill(signal: NodeJS.Signals): Promise<number | NodeJS.Signals> {
    this.#child.kill(signal);
    return await this.#ended;
  }

  ended(): Promise<number | NodeJS.Signals> {
    return this.#ended;
  }
}
