import { constants } from "node:os";
import { setTimeout as sleepFor } from "node:timers/promises";
import { CACHES } from "../arguments.ts";
import type { AccessOptions } from "../images.ts";
import { CommandError } from "../verb.ts";
import { type Command, Failed, Misused } from "./command.ts";
import type { Given } from "./flags.ts";
import { bytesArgument } from "./numbers.ts";
import type { Access } from "./session.ts";

/** The cache modes that go around the host's cache in QEMU. */
const DIRECT = new Set(["none", "off", "directsync"]);

/** What the flags of the command line and of `open` have in common; the letters are the same. */
export function accessOf(has: (flag: string) => boolean, value: (flag: string) => string | undefined, format: string | undefined, source: AccessOptions): Access {
  if (has("C")) throw new CommandError("copy-on-read is not supported: make an overlay, and read it with disk86 convert");
  const aio = value("i") ?? (has("k") ? "native" : "threads"), cache = value("t") ?? (has("n") ? "none" : "writeback");
  if (!["threads", "native", "io_uring"].includes(aio)) throw new CommandError(`Invalid aio option: ${aio}`);
  if (aio === "native" && !DIRECT.has(cache)) throw new CommandError("aio=native was specified, but it requires cache.direct=on, which was not specified.");
  return { format, source, readOnly: has("r"), temporary: has("s"), cache, discard: value("d") ?? "unmap" };
}

/** A file with `-o`, as one name made of options. */
function nameOf(given: Given): { name: string; imageOpts: boolean } {
  const options = given.value("o"), [file] = given.words;
  if (given.words.length > 1 || (file === undefined && options === undefined)) throw new Misused();
  if (options === undefined) return { name: file ?? "", imageOpts: false };
  return { name: file === undefined ? options : `${options},file.filename=${file.replaceAll(",", ",,")}`, imageOpts: true };
}

export const open: Command = {
  name: "open", alias: "o", args: "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", oneline: "open the file specified by path",
  least: 1, most: Infinity, flags: "snCro:ki:t:d:U", fileless: true,
  help: `
 opens a new file in the requested mode

 Example:
 'open -n -o driver=raw /tmp/data' - opens raw data file read-write, uncached

 Opens a file for subsequent use by all of the other commands.
 -r, -- open file read-only
 -s, -- changes go to memory, and are forgotten
 -n, -- disable host cache, short for -t none
 -U, -- force shared permissions
 -k, -i -- accepted, make no difference
 -t, -- use the given cache mode for the image
 -d, -- use the given discard mode for the image
 -o, -- options to be given to the block driver: driver=FMT,...
`,
  async run(session, given) {
    const { name, imageOpts } = nameOf(given);
    await session.open(name, accessOf((flag) => given.has(flag), (flag) => given.value(flag), undefined, { lock: !given.has("U"), imageOpts, secrets: session.secrets }));
  },
};

export const reopen: Command = {
  name: "reopen", args: "[(-r|-w)] [-c cache] [-o options]", oneline: "reopens an image with new options", least: 0, most: Infinity, flags: "c:o:rw",
  help: `
 Changes the open options of an already opened image

 -r, -- Reopen the image read-only
 -w, -- Reopen the image read-write
 -c, -- Change the cache mode to the given value

`,
  async run(session, given) {
    const cache = given.value("c");
    if (cache !== undefined && !CACHES.has(cache)) throw new CommandError(`Invalid cache option: ${cache}`);
    if (given.has("r") && given.has("w")) throw new CommandError("Only one -r/-w option may be given");
    if (given.has("o")) throw new CommandError("-o is not supported: close and open the image instead");
    if (given.words.length > 0) throw new Misused();
    await session.reopen({ ...(cache === undefined ? {} : { cache }), ...(given.has("r") ? { readOnly: true } : {}), ...(given.has("w") ? { readOnly: false } : {}) });
  },
};

export const close: Command = {
  name: "close", alias: "c", args: "", oneline: "close the current open file", least: 0, most: 0,
  run: (session) => session.close(),
};

export const quit: Command = {
  name: "quit", alias: "q", args: "", oneline: "exit the program", least: 0, most: 0, fileless: true,
  run(session) {
    session.done = true;
  },
};

export const sleep: Command = {
  name: "sleep", args: "", oneline: "waits for the given value in milliseconds", least: 1, most: 1, fileless: true,
  async run(_session, { words: [text = ""] }) {
    if (!/^\d+$/.test(text)) throw new Failed(`${text} is not a valid number`);
    await sleepFor(Number(text));
  },
};

export const sigraise: Command = {
  name: "sigraise", args: "signal", oneline: "raises a signal", least: 1, most: 1, fileless: true,
  help: `
 raises the given signal

 Example:
 'sigraise ${constants.signals.SIGTERM}' - raises SIGTERM

`,
  async run(_session, { words: [text = ""] }) {
    process.kill(process.pid, bytesArgument(text));
    // A signal that has a handler is told of on the next turn.
    await sleepFor(0);
  },
};

export const abort: Command = {
  name: "abort", args: "", oneline: "simulate a program crash using abort(3)", least: 0, most: 0, fileless: true,
  run: () => process.abort(),
};

const noBreakpoint = (name: string, args: string, oneline: string, words: number, told: (tag: string) => string): Command => ({
  name, args, oneline, least: words, most: words,
  run(_session, { words: [tag = ""] }) {
    throw new Failed(`${told(tag)}: Operation not supported`);
  },
});

/** Those of QEMU's blkdebug, which is not there. */
export const BREAKPOINTS: readonly Command[] = [
  noBreakpoint("break", "event tag", "sets a breakpoint on event and tags the stopped request as tag", 2, () => "Could not set breakpoint"),
  noBreakpoint("remove_break", "tag", "remove a breakpoint by tag", 1, (tag) => `Could not remove breakpoint ${tag}`),
  noBreakpoint("resume", "tag", "resumes the request tagged as tag", 1, () => "Could not resume request"),
  noBreakpoint("wait_break", "tag", "waits for the suspension of a request", 1, () => "Could not wait for a breakpoint"),
];
