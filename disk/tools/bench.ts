import { Buffer } from "node:buffer";
import type { Disk } from "../disk.ts";
import { call as later, type Task, wait } from "../task.ts";
import { CACHES, onlyFile, SHARED } from "./arguments.ts";
import { openImageDisk } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { fixed, integer, sizeArgument } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, type Verb } from "./verb.ts";

const MOST = 2 ** 31 - 1;

export const bench: Verb = {
  usage: "[-c COUNT] [-d DEPTH] [-f FMT] [--flush-interval=COUNT [--no-drain]] [-o OFFSET] [--pattern=BYTE] [-q] [-s SIZE] [-S STEP] [-w] [-U] FILE|URL",
  about: `Times requests to an image, one beside the other, at rising offsets that begin anew at the disk's end.
With -w it writes, and what the image held there is lost.`,
  examples: [
    ["disk86 bench disk.qcow2", "75000 reads of 4 KiB"],
    ["disk86 bench -c 1000 -s 1M -d 4 https://example.org/disk.qcow2", "large reads, four at a time, from the web"],
    ["disk86 bench -w -c 5000 -d 8 --flush-interval=8 scratch.qcow2", "writes, with a flush after every eighth"],
  ],
  options: [
    { name: "count", short: "c", value: "COUNT", help: "how many requests; 75000 if not given" }, { name: "depth", short: "d", value: "DEPTH", help: "how many at a time; 64 if not given" },
    SHARED.format, { name: "flush-interval", value: "COUNT", help: "flush after so many writes" }, { name: "no-drain", help: "go on writing while it flushes" },
    { name: "aio", short: "i", value: "threads|native|io_uring", help: "as qemu-img's: accepted, makes no difference" }, { name: "native", short: "n", help: "the same" },
    { name: "offset", short: "o", value: "OFFSET", help: "where the first request goes" }, { name: "pattern", value: "BYTE", help: "what is written; 0 if not given" },
    SHARED.quiet, { name: "buffer-size", short: "s", value: "SIZE", help: "bytes a request; 4k if not given" }, { name: "step-size", short: "S", value: "STEP", help: "from one request's offset to the next one's; SIZE if not given" },
    SHARED.cache, { name: "write", short: "w", help: "write" }, SHARED.forceShare, SHARED.imageOpts, SHARED.object,
  ],
  run: runBench,
};

/** What is asked for; sizes in bytes. */
interface Load {
  readonly count: number; readonly depth: number; readonly offset: number; readonly size: number; readonly step: number;
  readonly write: boolean; readonly pattern: number; readonly flushEvery: number; readonly drain: boolean;
}

async function runBench(call: Call): Promise<number> {
  const load = loadOf(call), file = onlyFile(call);
  const { disk } = await openImageDisk(file, sourceFormat(call), { ...(await sourceAccess(call)), writable: load.write });
  const { count, depth, offset, size, step, write, flushEvery } = load;
  call.output.out(`Sending ${count} ${write ? "write" : "read"} requests, ${size} bytes each, ${depth} in parallel (starting at offset ${integer(offset)}, step size ${step})\n`);
  if (flushEvery > 0) call.output.out(`Sending flush every ${flushEvery} requests\n`);
  const seconds = await runInterruptible(benchTask(disk, load));
  call.output.out(`Run completed in ${fixed(seconds, 3)} seconds.\n`);
  return 0;
}

function loadOf(call: Call): Load {
  const number = (option: string, usual: number, what: string, least = 0, most = MOST): number => {
    const text = call.value(option) ?? String(usual), value = /^(0x[0-9a-f]+|\d+)$/i.test(text) ? Number(text) : Infinity;
    if (value < least || value > most) throw new CommandError(`Invalid ${what} specified`);
    return value;
  };
  const size = (option: string, what: string): number | undefined => (call.has(option) ? sizeArgument(call.value(option) ?? "", what) : undefined);
  const aio = call.value("aio") ?? "threads", cache = call.value("cache") ?? "writeback";
  if (!["threads", "native", "io_uring"].includes(aio)) throw new CommandError(`Invalid aio option: ${aio}`);
  if (!CACHES.has(cache)) throw new CommandError("Invalid cache mode");
  const count = number("count", 75000, "request count"), depth = number("depth", 64, "queue depth", 1), pattern = number("pattern", 0, "pattern byte", 0, 255), flushEvery = number("flush-interval", 0, "flush interval");
  const offset = size("offset", "offset") ?? 0, bytes = size("buffer-size", "buffer size") ?? 4096, step = size("step-size", "step_size") ?? 0, write = call.has("write");
  if (!write && flushEvery > 0) throw new CommandError("--flush-interval is only available in write tests");
  if (flushEvery > 0 && flushEvery < depth) throw new CommandError("Flush interval can't be smaller than depth");
  if (bytes > MOST || step > MOST) throw new CommandError(`Invalid ${bytes > MOST ? "buffer size" : "step_size"} specified. Must be between 0 and ${MOST}.`);
  return { count, depth, offset, size: bytes, step: step === 0 ? bytes : step, write, pattern, flushEvery, drain: !call.has("no-drain") };
}

/** How many seconds it took. */
function* benchTask(disk: Disk, load: Load): Task<number> {
  try {
    const began = performance.now();
    yield* requests(disk, load);
    return (performance.now() - began) / 1000;
  } finally {
    yield* later(() => disk.close());
  }
}

function* requests(disk: Disk, { count, depth, offset, size, step, write, pattern, flushEvery, drain }: Load): Task {
  const buffers: Buffer[] = [], flying = new Set<Promise<void>>();
  const anyDone = (): Promise<void> => Promise.race(flying), allDone = async (): Promise<void> => { await Promise.all(flying); };
  for (let sent = 0, at = offset; sent < count; sent++) {
    if (at + size > disk.size) throw new CommandError("Failed request: Input/output error");
    const bytes = buffers.pop() ?? Buffer.alloc(size, pattern), place = at;
    yield wait(() => {
      const pending = write ? disk.write(place, bytes) : disk.read(place, bytes);
      if (pending instanceof Promise) return fly(flying, pending.finally(() => { buffers.push(bytes); }));
      buffers.push(bytes);
    });
    at = disk.size === 0 ? 0 : (at + step) % disk.size;
    if (flying.size >= depth) yield wait(anyDone);
    if (flushEvery === 0 || (sent + 1) % flushEvery !== 0) continue;
    if (drain && flying.size > 0) yield wait(allDone);
    yield wait(() => disk.flush());
  }
  yield wait(allDone);
}

/** Notes a request that is under way; it is not waited for. */
function fly(flying: Set<Promise<void>>, pending: Promise<void>): void {
  const one: Promise<void> = pending.finally(() => { flying.delete(one); });
  // Whoever waits hears of a failure.
  one.catch(() => {});
  flying.add(one);
}
