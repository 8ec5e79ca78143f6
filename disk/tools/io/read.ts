import type { Command } from "./command.ts";
import { Failed, Misused } from "./command.ts";
import type { Given } from "./flags.ts";
import { bytesArgument, MAX_REQUEST, patternArgument } from "./numbers.ts";
import { dump, report } from "./report.ts";
import type { Session } from "./session.ts";

/** How a read is checked and shown. */
interface Reading {
  readonly offset: number;
  readonly length: number;
  readonly pattern: number | undefined;
  /** The part of it that must be the pattern. */
  readonly start: number;
  readonly end: number;
  /** What a failure is told of. */
  readonly name: string;
  readonly show: boolean;
  readonly quiet: boolean;
  readonly terse: boolean;
}

async function readAndTell(session: Session, reading: Reading): Promise<void> {
  const { offset, length, pattern, start, end } = reading, bytes = new Uint8Array(length), began = performance.now();
  await session.request(reading.name, () => session.read(offset, bytes));
  const ended = performance.now(), { output } = session;
  let wrong = false;
  if (pattern !== undefined && bytes.subarray(start, end).some((byte) => byte !== pattern)) {
    output.out(`Pattern verification failed at offset ${offset + start}, ${end - start} bytes\n`);
    wrong = true;
  }
  if (!reading.quiet) {
    if (reading.show) for (const line of dump(bytes, offset)) output.out(line);
    output.out(report("read", began, ended, offset, length, reading.terse));
  }
  if (wrong) throw new Failed("");
}

const shown = (given: Given) => ({ show: given.has("v"), quiet: given.has("q"), terse: given.has("C") });

/** `-P`. */
export function patternOf(given: Given): number | undefined {
  const text = given.value("P");
  return text === undefined ? undefined : patternArgument(text);
}

/** The lengths of a request with several buffers, as one. */
export function lengthsArgument(words: readonly string[]): number {
  let sum = 0;
  for (const word of words) {
    const length = bytesArgument(word);
    if (length > MAX_REQUEST) throw new Failed(`Argument '${word}' exceeds maximum size ${MAX_REQUEST}`);
    if (sum + length > MAX_REQUEST) throw new Failed(`The total number of bytes exceed the maximum size ${MAX_REQUEST}`);
    sum += length;
  }
  return sum;
}

export const VMSTATE = "the VM state cannot be reached: disk86 keeps it with its snapshots only";

export const read: Command = {
  name: "read", alias: "r", args: "[-abCqv] [-P pattern [-s off] [-l len]] off len", oneline: "reads a number of bytes at a specified offset",
  least: 2, most: Infinity, flags: "bCl:pP:qs:v",
  help: `
 reads a range of bytes from the given offset

 Example:
 'read -v 512 1k' - dumps 1 kilobyte read from 512 bytes into the file

 -C, -- report statistics in a machine parsable format
 -l, -- length for pattern verification (only with -P)
 -p, -- ignored for backwards compatibility
 -P, -- use a pattern to verify read data
 -q, -- quiet mode, do not show I/O statistics
 -s, -- start offset for pattern verification (only with -P)
 -v, -- dump buffer to standard output

`,
  async run(session, given) {
    const pattern = patternOf(given), skip = bytesArgument(given.value("s") ?? "0"), part = given.value("l"), some = part === undefined ? undefined : bytesArgument(part);
    const [from = "", count = ""] = given.exactly(2), offset = bytesArgument(from), length = bytesArgument(count);
    if (length > MAX_REQUEST) throw new Failed(`length cannot exceed ${MAX_REQUEST}, given ${count}`);
    if (pattern === undefined && (given.has("s") || given.has("l"))) throw new Misused();
    const end = skip + (some ?? length - skip);
    if (skip > length || end > length) throw new Failed("pattern verification range exceeds end of read data");
    if (given.has("b")) throw new Failed(VMSTATE, "error");
    await readAndTell(session, { offset, length, pattern, start: skip, end, name: "read", ...shown(given) });
  },
};

/** A read into several buffers, which are one here. */
function reading(given: Given): Reading {
  const pattern = patternOf(given), [from = "", ...counts] = given.words;
  if (counts.length === 0) throw new Misused();
  const offset = bytesArgument(from), length = lengthsArgument(counts);
  return { offset, length, pattern, start: 0, end: length, name: "readv", ...shown(given) };
}

export const readv: Command = {
  name: "readv", args: "[-Cqv] [-P pattern] off len [len..]", oneline: "reads a number of bytes at a specified offset",
  least: 2, most: Infinity, flags: "CP:qv",
  help: `
 reads a range of bytes from the given offset into multiple buffers

 Example:
 'readv -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file

 -C, -- report statistics in a machine parsable format
 -P, -- use a pattern to verify read data
 -v, -- dump buffer to standard output
 -q, -- quiet mode, do not show I/O statistics

`,
  run: (session, given) => readAndTell(session, reading(given)),
};

export const aioRead: Command = {
  name: "aio_read", args: "[-Ciqv] [-P pattern] off len [len..]", oneline: "asynchronously reads a number of bytes",
  least: 2, most: Infinity, flags: "CP:iqv",
  help: `
 asynchronously reads a range of bytes from the given offset

 Example:
 'aio_read -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file

 aio_flush waits until all such requests have been completed. The command is successful
 once the request is submitted: errors and pattern mismatches are told when it ends.
 -C, -- report statistics in a machine parsable format
 -P, -- use a pattern to verify read data
 -i, -- treat request as invalid, for exercising stats
 -v, -- dump buffer to standard output
 -q, -- quiet mode, do not show I/O statistics

`,
  run(session, given) {
    if (given.has("i")) return session.output.out("injecting invalid read request\n");
    const wanted = reading(given);
    session.background(() => readAndTell(session, wanted));
  },
};
