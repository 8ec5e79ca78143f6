import { readFile } from "node:fs/promises";
import { type Command, Failed, Misused } from "./command.ts";
import type { Given } from "./flags.ts";
import { bytesArgument, MAX_REQUEST } from "./numbers.ts";
import { lengthsArgument, patternOf, VMSTATE } from "./read.ts";
import { report } from "./report.ts";
import type { Session } from "./session.ts";

/** What memory is filled with that nobody gave a pattern for. */
const FILL = 0xcd;
const SECTOR = 512;

/** Writes, and tells of it; `name` begins a complaint. */
async function writeAndTell(session: Session, given: Given, name: string, offset: number, length: number, work: () => Promise<void>): Promise<void> {
  const began = performance.now();
  await session.request(name, work);
  if (!given.has("q")) session.output.out(report("wrote", began, performance.now(), offset, length, given.has("C")));
}

const filled = (length: number, given: Given): Uint8Array => new Uint8Array(length).fill(patternOf(given) ?? FILL);

/** A file's bytes, over and over. */
async function fromFile(path: string, length: number): Promise<Uint8Array> {
  let source: Uint8Array;
  try {
    source = await readFile(path);
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === "ENOENT";
    throw new Failed(`${path}: ${missing ? "No such file or directory" : (error as Error).message}`, "error", { cause: error });
  }
  if (source.length === 0) throw new Failed(`${path}: file is empty`, "error");
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += source.length) bytes.set(source.subarray(0, length - at), at);
  return bytes;
}

function checkFlags(given: Given): void {
  const refuse = (what: string): never => { throw new Failed(what); };
  if (given.has("b") && given.has("z")) refuse("-b and -z cannot be specified at the same time");
  if (given.has("f") && (given.has("b") || given.has("c"))) refuse("-f and -b or -c cannot be specified at the same time");
  if (given.has("n") && !given.has("z")) refuse("-n requires -z to be specified");
  if (given.has("u") && !given.has("z")) refuse("-u requires -z to be specified");
  if (["z", "P", "s"].filter((flag) => given.has(flag)).length > 1) refuse("Only one of -z, -P, and -s can be specified at the same time");
}

function checkAligned(value: number, what: string): void {
  if (value % SECTOR !== 0) throw new Failed(`${value} is not a sector-aligned value for '${what}'`);
}

export const write: Command = {
  name: "write", alias: "w", args: "[-bcCfnquz] [-P pattern | -s source_file] off len", oneline: "writes a number of bytes at a specified offset",
  least: 2, most: Infinity, flags: "bcCfnpP:qs:uz", changes: true,
  help: `
 writes a range of bytes from the given offset

 Example:
 'write 512 1k' - writes 1 kilobyte at 512 bytes into the open file

 Writes into a segment of the currently open file, using a buffer
 filled with a set pattern (0xcdcdcdcd).
 -c, -- write compressed data
 -f, -- use Force Unit Access semantics
 -p, -- ignored for backwards compatibility
 -P, -- use different pattern to fill file
 -s, -- use a pattern file to fill the write buffer
 -C, -- report statistics in a machine parsable format
 -q, -- quiet mode, do not show I/O statistics
 -u, -- with -z, allow unmapping
 -z, -- write zeroes

`,
  async run(session, given) {
    const source = given.value("s"), durable = given.has("f");
    patternOf(given);
    checkFlags(given);
    const [from = "", count = ""] = given.exactly(2), offset = bytesArgument(from), length = bytesArgument(count);
    if (length > MAX_REQUEST && !given.has("n")) throw new Failed(`length cannot exceed ${MAX_REQUEST} without -n, given ${count}`);
    if (given.has("b") || given.has("c")) {
      checkAligned(offset, "offset");
      checkAligned(length, "count");
    }
    if (given.has("b")) throw new Failed(VMSTATE, "error");
    if (given.has("n")) throw new Failed("-n is not supported: no format tells beforehand whether zeros are cheap", "error");
    if (given.has("z")) return await writeAndTell(session, given, "write", offset, length, () => session.zero(offset, length, given.has("u"), durable));
    const bytes = source === undefined ? filled(length, given) : await fromFile(source, length);
    await writeAndTell(session, given, "write", offset, length, () => (given.has("c") ? session.writePacked(offset, bytes) : session.write(offset, bytes, durable)));
  },
};

export const writev: Command = {
  name: "writev", args: "[-Cfq] [-P pattern] off len [len..]", oneline: "writes a number of bytes at a specified offset",
  least: 2, most: Infinity, flags: "CfqP:", changes: true,
  help: `
 writes a range of bytes from the given offset source from multiple buffers

 Example:
 'writev 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file

 Writes into a segment of the currently open file, using a buffer
 filled with a set pattern (0xcdcdcdcd).
 -P, -- use different pattern to fill file
 -C, -- report statistics in a machine parsable format
 -f, -- use Force Unit Access semantics
 -q, -- quiet mode, do not show I/O statistics

`,
  async run(session, given) {
    const [from = "", ...counts] = given.words;
    patternOf(given);
    if (counts.length === 0) throw new Misused();
    const offset = bytesArgument(from), length = lengthsArgument(counts), bytes = filled(length, given);
    await writeAndTell(session, given, "writev", offset, length, () => session.write(offset, bytes, given.has("f")));
  },
};

export const aioWrite: Command = {
  name: "aio_write", args: "[-Cfiquz] [-P pattern] off len [len..]", oneline: "asynchronously writes a number of bytes",
  least: 2, most: Infinity, flags: "CfiP:quz", changes: true,
  help: `
 asynchronously writes a range of bytes from the given offset source
 from multiple buffers

 Example:
 'aio_write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file

 aio_flush waits until all such requests have been completed. The command is successful
 once the request is submitted: errors are told when it ends.
 -P, -- use different pattern to fill file
 -C, -- report statistics in a machine parsable format
 -f, -- use Force Unit Access semantics
 -i, -- treat request as invalid, for exercising stats
 -q, -- quiet mode, do not show I/O statistics
 -u, -- with -z, allow unmapping
 -z, -- write zeroes

`,
  run(session, given) {
    if (given.has("i")) return session.output.out("injecting invalid write request\n");
    patternOf(given);
    const [from = "", ...counts] = given.words, durable = given.has("f");
    if (counts.length === 0) throw new Misused();
    if (given.has("z") && counts.length > 1) throw new Failed("-z supports only a single length parameter");
    if (given.has("u") && !given.has("z")) throw new Failed("-u requires -z to be specified");
    const offset = bytesArgument(from), length = lengthsArgument(counts), bytes = given.has("z") ? undefined : filled(length, given);
    session.background(() => writeAndTell(session, given, "aio_write", offset, length, () => (bytes === undefined ? session.zero(offset, length, given.has("u"), durable) : session.write(offset, bytes, durable))));
  },
};
