import { MemoryStorage } from "../../disk/storage/memory.ts";

/** Which of an image's files: the image itself, or the one with its data. */
export type Which = "image" | "data";

/** One change that reached a storage; it is durable only after the next flush of that storage. */
export type Change = { readonly file: Which } & (
  | { readonly op: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly op: "zero" | "discard"; readonly offset: number; readonly length: number }
  | { readonly op: "truncate"; readonly size: number });

export type LogEntry = Change | { readonly op: "flush"; readonly barrier: string; readonly file: Which };

/** What can be lost or torn independently of its neighbours. */
export const SECTOR = 512;

/**
 * A storage in memory that writes a log of every change and every flush, from which all states can be built that a
 * power cut may leave. A flush whose barrier is in `ignored` is answered but not done: it leaves no trace.
 */
export class PowerCutStorage extends MemoryStorage {
  readonly log: LogEntry[];
  /** The names of all flushes, ignored ones too. */
  readonly barriers: Set<string>;
  readonly initial: Uint8Array;
  /** The image's second file, which loses its power with it: both write one log. */
  data: PowerCutStorage | undefined;
  readonly file: Which;

  /** `beside`: this is the data file of that image. */
  constructor(initial: Uint8Array, name = "powercut", readonly ignored: ReadonlySet<string> = new Set(), beside?: PowerCutStorage) {
    super(initial.slice(), name);
    this.initial = initial.slice();
    this.log = beside?.log ?? [];
    this.barriers = beside?.barriers ?? new Set();
    this.file = beside === undefined ? "image" : "data";
    if (beside !== undefined) beside.data = this;
  }

  override write(offset: number, from: Uint8Array): void {
    this.log.push({ op: "write", offset, bytes: new Uint8Array(from), file: this.file });
    void super.write(offset, from);
  }

  override zero(offset: number, length: number): void {
    this.log.push({ op: "zero", offset, length, file: this.file });
    void super.zero(offset, length);
  }

  override discard(offset: number, length: number): void {
    this.log.push({ op: "discard", offset, length, file: this.file });
    void super.zero(offset, length);
  }

  override truncate(size: number): void {
    this.log.push({ op: "truncate", size, file: this.file });
    void super.truncate(size);
  }

  override flush(barrier?: string): void {
    if (barrier === undefined) throw new Error("a flush without its barrier's name");
    this.barriers.add(barrier);
    if (!this.ignored.has(barrier)) this.log.push({ op: "flush", barrier, file: this.file });
  }
}

/**
 * The changes up to a flush that none made durable yet: any part of them may be lost. `settled`: those that this flush
 * makes durable, all but the other file's. `to`: its place in the log.
 */
export interface Epoch { readonly changes: readonly Change[]; readonly settled: readonly Change[]; readonly to: number }

export function epochs(log: readonly LogEntry[]): Epoch[] {
  const found: Epoch[] = [];
  let changes: Change[] = [];
  for (const [at, entry] of log.entries()) {
    if (entry.op !== "flush") {
      changes.push(entry);
      continue;
    }
    const settled = changes.filter(({ file }) => file === entry.file);
    found.push({ changes, settled, to: at });
    changes = changes.filter(({ file }) => file !== entry.file);
  }
  found.push({ changes, settled: changes, to: log.length });
  return found;
}

export function apply(change: Change, to: MemoryStorage): void {
  switch (change.op) {
    case "write": void to.write(change.offset, change.bytes); break;
    case "zero":
    case "discard": void to.zero(change.offset, change.length); break;
    case "truncate": void to.truncate(change.size); break;
  }
}

/** The sectors of a write, each of which may reach the disk without the others. Everything else is one piece. */
export function pieces(change: Change): Change[] {
  if (change.op !== "write") return [change];
  const { offset, bytes, file } = change, parts: Change[] = [];
  for (let at = offset; at < offset + bytes.length;) {
    const end = Math.min(offset + bytes.length, (Math.floor(at / SECTOR) + 1) * SECTOR);
    parts.push({ op: "write", offset: at, bytes: bytes.subarray(at - offset, end - offset), file });
    at = end;
  }
  return parts;
}
