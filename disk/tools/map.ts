import type { Disk } from "../disk.ts";
import { call as later, type Task } from "../task.ts";
import { onlyFile, outputFormat, SHARED } from "./arguments.ts";
import { diskOf, openImageFile } from "./images.ts";
import { runInterruptible } from "./interrupt.ts";
import { denseImages, type Entry, entryAt } from "./ranges.ts";
import { integer, sizeArgument } from "./sizes.ts";
import { sourceAccess, sourceFormat } from "./source.ts";
import { type Call, CommandError, type Output, type Verb } from "./verb.ts";

export const map: Verb = {
  usage: "[-f FMT] [--start-offset=OFFSET] [--max-length=LENGTH] [--output=human|json] [-U] FILE|URL",
  about: `Lists where the guest's bytes stand: in which image of the chain, at which offset. For people only data is listed;
JSON tells of everything, with the depth in the chain (0: the image named).`,
  examples: [
    ["disk86 map disk.qcow2", "what has data, and where"],
    ["disk86 map --output=json top.qcow2", "every range of the disk, for programs"],
    ["disk86 map -s 1G -l 64M disk.qcow2", "64 MiB of it"],
  ],
  options: [
    SHARED.format, SHARED.output, { name: "start-offset", short: "s", value: "OFFSET", help: "where to begin on the guest's disk; k, M, G... may follow" },
    { name: "max-length", short: "l", value: "LENGTH", help: "how much of it to list" }, SHARED.forceShare, SHARED.imageOpts, SHARED.object,
  ],
  run: runMap,
};

async function runMap(call: Call): Promise<number> {
  const file = onlyFile(call), json = outputFormat(call) === "json";
  const start = sizeArgument(call.value("start-offset") ?? "0", "start offset"), most = call.value("max-length");
  const length = most === undefined ? Infinity : sizeArgument(most, "max length");
  const access = await sourceAccess(call), image = await openImageFile(file, sourceFormat(call), access);
  await runInterruptible(mapTask(call.output, json, start, length, () => diskOf(image, access)));
  return 0;
}

function* mapTask(output: Output, json: boolean, start: number, length: number, open: () => Task<Disk>): Task {
  const disk = yield* open();
  const listing = new Listing(output, json);
  try {
    const end = Math.min(disk.size, start + length), dense = denseImages(disk.chain);
    let last: Entry = { start, length: 0, depth: 0, present: false, zero: false, data: false };
    while (last.start + last.length < end) {
      const at = last.start + last.length;
      const next = yield* entryAt(disk.chain, at, end - at, dense);
      if (continues(last, next)) last = { ...last, length: last.length + next.length };
      else {
        if (last.length > 0) listing.add(last);
        last = next;
      }
    }
    listing.end(last);
  } finally {
    yield* later(() => disk.close());
  }
}

function continues(last: Entry, next: Entry): boolean {
  const same = last.depth === next.depth && last.present === next.present && last.zero === next.zero && last.data === next.data && last.file === next.file;
  return same && (last.offset === undefined ? next.offset === undefined : last.offset + last.length === next.offset);
}

const FLUSH_AT = 1 << 16;

/** Prints entries as qemu-img does. */
class Listing {
  #text: string;
  #count = 0;

  constructor(readonly output: Output, readonly json: boolean) {
    this.#text = json ? "[" : `${"Offset".padEnd(16)}${"Length".padEnd(16)}${"Mapped to".padEnd(16)}File\n`;
  }

  add(entry: Entry): void {
    if (this.json) this.#text += `${this.#count++ === 0 ? "" : ",\n"}${toJson(entry)}`;
    else if (entry.data && !entry.zero) this.#text += this.#line(entry);
    if (this.#text.length > FLUSH_AT) this.#flush();
  }

  end(last: Entry): void {
    this.add(last);
    if (this.json) this.#text += "]\n";
    this.#flush();
  }

  #line({ start, length, offset, file }: Entry): string {
    if (offset === undefined) {
      this.#flush();
      throw new CommandError("File contains external, encrypted or compressed clusters. (--output=json lists them)");
    }
    return `${hexColumn(start)}${hexColumn(length)}${hexColumn(offset)}${file}\n`;
  }

  #flush(): void {
    this.output.out(this.#text);
    this.#text = "";
  }
}

/** C's `%#-16x`. */
function hexColumn(value: number): string {
  return (value === 0 ? "0" : `0x${value.toString(16)}`).padEnd(16);
}

function toJson({ start, length, depth, present, zero, data, offset }: Entry): string {
  const place = offset === undefined ? "" : `, "offset": ${integer(offset)}`;
  return `{ "start": ${integer(start)}, "length": ${integer(length)}, "depth": ${depth}, "present": ${present}, "zero": ${zero}, "data": ${data}${place}}`;
}
