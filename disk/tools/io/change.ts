import type { Command } from "./command.ts";
import { Failed } from "./command.ts";
import { bytesArgument, MAX_REQUEST } from "./numbers.ts";
import { report } from "./report.ts";
import { DiskError } from "../../errors.ts";
import { CommandError } from "../verb.ts";

export const discard: Command = {
  name: "discard", alias: "d", args: "[-Cq] off len", oneline: "discards a number of bytes at a specified offset",
  least: 2, most: Infinity, flags: "Cq", changes: true,
  help: `
 discards a range of bytes from the given offset

 Example:
 'discard 512 1k' - discards 1 kilobyte from 512 bytes into the file

 Discards a segment of the currently open file.
 -C, -- report statistics in a machine parsable format
 -q, -- quiet mode, do not show I/O statistics

`,
  async run(session, given) {
    const [from = "", count = ""] = given.exactly(2), offset = bytesArgument(from), length = bytesArgument(count);
    if (length > MAX_REQUEST) throw new Failed(`length cannot exceed ${MAX_REQUEST}, given ${count}`);
    const began = performance.now();
    await session.request("discard", () => session.discard(offset, length));
    if (!given.has("q")) session.output.out(report("discard", began, performance.now(), offset, length, given.has("C")));
  },
};

export const flush: Command = {
  name: "flush", alias: "f", args: "", oneline: "flush all in-core file state to disk", least: 0, most: 0,
  async run(session) {
    await session.drain();
    await session.disk.flush();
  },
};

const PREALLOCATIONS = new Set(["off", "metadata", "falloc", "full"]);

export const truncate: Command = {
  name: "truncate", alias: "t", args: "[-m prealloc_mode] off", oneline: "truncates the current file at the given offset",
  least: 1, most: 3, flags: "m:", changes: true,
  async run(session, given) {
    const mode = given.value("m") ?? "off", [to = ""] = given.words;
    if (!PREALLOCATIONS.has(mode)) throw new CommandError(`Invalid preallocation mode '${mode}'`);
    const size = bytesArgument(to);
    if (mode !== "off") throw new CommandError(`-m ${mode} is not supported: use disk86 resize --preallocation`);
    try {
      await session.disk.truncate(size);
    } catch (error) {
      throw error instanceof DiskError ? new CommandError(error.message, 1, { cause: error }) : error;
    }
  },
};

export const aioFlush: Command = {
  name: "aio_flush", args: "", oneline: "completes all outstanding aio requests", least: 0, most: 0,
  run: (session) => session.drain(),
};
