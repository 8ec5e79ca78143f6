import { MemoryStorage } from "../../disk/storage/memory.ts";

/** One change that reached the storage; it is durable only after the next flush. */
export type Change =
  | { readonly op: "write"; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly op: "zero" | "discard"; readonly offset: number; readonly length: number }
  | { readonly op: "truncate"; readonly size: number };

export type LogEntry = Change | { readonly op: "flush"; readonly barrier: string };

/** What can be lost or torn independently of its neighbours. */
export const SECTOR = 512;

/**
 * A storage in memory that writes a log of every change and every flush, from which all states can be built that a
 * power cut may leave. A flush whose barrier is in `ignored` is answered but not done: it leaves no trace.
 */
export class PowerCutStorage extends MemoryStorage {
  readonly log: LogEntry[] = [];
  /** The names of all flushes, ignored ones too. */
  readonly barriers = new Set<string>();
  readonly initial: Uint8Array;

  constructor(initial: Uint8Array, name = "powercut", readonly ignored: ReadonlySet<string> = new Set()) {
    super(initial.slice(), name);
    this.initial = initial.slice();
  }

  override write(offset: number, from: Uint8Array): void {
    this.log.push({ op: "write", offset, bytes: from.slice() });
    void super.write(offset, from);
  }

  override zero(offset: number, length: number): void {
    this.log.push({ op: "zero", offset, length });
    void super.zero(offset, length);
  }

  override discard(offset: number, length: number): void {
    this.log.push({ op: "discard", offset, length });
    void super.zero(offset, length);
  }

  override truncate(size: number): void {
    this.log.push({ op: "truncate", size });
    void super.truncate(size);
  }

  override flush(barrier?: string): void {
    if (barrier === undefined) throw new Error("a flush without its barrier's name");
    this.barriers.add(barrier);
    if (!this.ignored.has(barrier)) this.log.push({ op: "flush", barrier });
  }
}

/** The changes between two flushes: any part of them may be lost. `from`, `to`: their place in the log. */
export interface Epoch { readonly changes: readonly Change[]; readonly from: number; readonly to: number }

export function epochs(log: readonly LogEntry[]): Epoch[] {
  const found: Epoch[] = [];
  let changes: Change[] = [], from = 0;
  for (const [at, entry] of log.entries()) {
    if (entry.op !== "flush") {
      changes.push(entry);
      continue;
    }
    found.push({ changes, from, to: at });
    changes = [];
    from = at + 1;
  }
  found.push({ changes, from, to: log.length });
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
  const { offset, bytes } = change, parts: Change[] = [];
  for (let at = offset; at < offset + bytes.length;) {
    const end = Math.min(offset + bytes.length, (Math.floor(at / SECTOR) + 1) * SECTOR);
    parts.push({ op: "write", offset: at, bytes: bytes.subarray(at - offset, end - offset) });
    at = end;
  }
  return parts;
}
