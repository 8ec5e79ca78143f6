import { createInterface } from "node:readline";
import type { Machine } from "../machine.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Why a session ended. */
export type Ending = "left" | "halted" | "input ended" | (typeof SIGNALS)[number];

const CTRL_A = 1;
const HELP = "\r\n  Ctrl-A x  leave: as if the plug were pulled, so let the guest sync or power off first\r\n  Ctrl-A r  reset the machine\r\n  Ctrl-A Ctrl-A  send Ctrl-A\r\n  Ctrl-A h  this\r\n";
/** What a guest may have left behind: attributes, a hidden cursor, keypad and mouse modes. */
const SANE = "\u001b[0m\u001b[?25h\u001b[?1l\u001b>\u001b[?1000l\u001b[?2004l";
const FOREVER = 2 ** 31 - 1;

export interface ConsoleOptions {
  /** Typed at the prompt, line by line, instead of what comes from standard input. */
  readonly script?: string | undefined;
  /** What the guest says when it waits for a line. Without it lines are sent as they come. */
  readonly prompt?: string | undefined;
}

/** This terminal as the machine's serial console, until the user leaves or the guest halts. The terminal is restored however it ends. */
export async function attachConsole(machine: Machine, options: ConsoleOptions): Promise<Ending> {
  const terminal = process.stdin.isTTY && options.script === undefined;
  const { ended, end, restoreSignals } = waitForEnd(machine);
  const silence = machine.on("serial", (bytes) => { process.stdout.write(bytes); });
  if (terminal) useTerminal(machine, end);
  else void typeLines(machine, options).then((typed) => { if (typed) end("input ended"); }, () => end("input ended"));
  machine.start();
  try {
    return await ended;
  } finally {
    silence();
    restoreSignals();
    process.stdin.pause();
    if (terminal) restoreTerminal();
  }
}

function waitForEnd(machine: Machine): { ended: Promise<Ending>; end: (ending: Ending) => void; restoreSignals: () => void } {
  let end: (ending: Ending) => void = () => {};
  const ended = new Promise<Ending>((resolve) => { end = resolve; });
  const onSignal = (signal: NodeJS.Signals): void => end(SIGNALS.find((one) => one === signal) ?? "SIGTERM");
  for (const signal of SIGNALS) process.on(signal, onSignal);
  machine.on("halted", () => end("halted"));
  return { ended, end, restoreSignals: () => { for (const signal of SIGNALS) process.off(signal, onSignal); } };
}

function useTerminal(machine: Machine, end: (ending: Ending) => void): void {
  const keys = new EscapeKeys({
    send: (bytes) => machine.serial.send(bytes),
    command: (key) => {
      if (key === "x") end("left");
      else if (key === "r") machine.reset();
      else if (key === "h" || key === "?") process.stdout.write(HELP);
    },
  });
  process.on("exit", restoreTerminal);
  process.stdin.setRawMode(true);
  process.stdin.on("data", (bytes: Buffer) => keys.type(bytes));
  // The terminal is gone: a window was closed.
  process.stdin.on("end", () => end("SIGHUP"));
}

function restoreTerminal(): void {
  process.off("exit", restoreTerminal);
  process.stdin.setRawMode(false);
  if (process.stdout.isTTY) process.stdout.write(`${SANE}\r\n`);
}

/** Splits what is typed into bytes for the guest and commands for us, which Ctrl-A begins. */
export class EscapeKeys {
  #escaped = false;

  constructor(readonly to: { send(bytes: Uint8Array): void; command(key: string): void }) {}

  type(bytes: Uint8Array): void {
    let from = 0;
    for (const [at, byte] of bytes.entries()) {
      if (this.#escaped) {
        this.#escaped = false;
        from = byte === CTRL_A ? at : at + 1;
        if (byte !== CTRL_A) this.to.command(String.fromCharCode(byte));
      } else if (byte === CTRL_A) {
        if (at > from) this.to.send(bytes.subarray(from, at));
        from = at + 1;
        this.#escaped = true;
      }
    }
    if (from < bytes.length && !this.#escaped) this.to.send(bytes.subarray(from));
  }
}

/** Types the script's or standard input's lines. Answers whether that was all there is to do: without a prompt the guest goes on. */
async function typeLines(machine: Machine, { script, prompt }: ConsoleOptions): Promise<boolean> {
  const lines = script === undefined ? createInterface({ input: process.stdin, crlfDelay: Infinity }) : script.split("\n");
  for await (const line of lines) {
    if (prompt !== undefined) await machine.waitForSerial(prompt, FOREVER);
    machine.serial.send(`${line}\n`);
  }
  if (prompt !== undefined) await machine.waitForSerial(prompt, FOREVER);
  return prompt !== undefined;
}
