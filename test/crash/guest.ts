import type { Disk } from "../../disk/disk.ts";
import type { Pending } from "../../disk/storage.ts";
import type { PowerCutStorage } from "../support/powercut.ts";

/** One change by the guest. `issued`: how long the log was then. A resize also has `size`. */
interface GuestChange {
  readonly issued: number; readonly offset: number; readonly bytes: Uint8Array;
  readonly size?: number; done: boolean;
}

/** A flush that was answered when the log was `at` long: what it covers must survive. */
interface Guarantee { readonly at: number; readonly covered: readonly GuestChange[] }

/** A guest that works on a disk and remembers what it may rely on after a power cut. */
export class Guest {
  readonly #changes: GuestChange[] = [];
  readonly #guarantees: Guarantee[] = [];
  readonly #bases = new Map<Guarantee, Uint8Array>();

  /** `initial`: what the guest disk held before; `backing`: what a dropped cluster may show again during a shrink. */
  constructor(readonly cut: PowerCutStorage, public disk: Disk, readonly initial: Uint8Array, readonly backing: Uint8Array = new Uint8Array(0)) {}

  write(offset: number, bytes: Uint8Array): Pending {
    return this.#issue({ offset, bytes: bytes.slice() }, () => this.disk.write(offset, bytes));
  }

  /** Writes `length` bytes that occur nowhere else. */
  fill(offset: number, length: number, mark: number): Pending {
    return this.write(offset, Uint8Array.from({ length }, (_, i) => (mark * 31 + i * 7 + Math.floor(i / 256) * 3) % 255 + 1));
  }

  /** Writes a whole block, which compresses well, as a compressed one. */
  pack(offset: number, mark: number): Pending {
    const length = Math.min(this.disk.packSize, this.disk.size - offset);
    const bytes = Uint8Array.from({ length }, (_, i) => (mark * 31 + (i >> 4) * 7) % 255 + 1);
    return this.#issue({ offset, bytes }, () => this.disk.writePacked(offset, bytes));
  }

  zero(offset: number, length: number, keep = false): Pending {
    return this.#issue({ offset, bytes: new Uint8Array(length) }, () => this.disk.zero(offset, length, keep));
  }

  /** A discarded byte stays or becomes zero, and what it reads as then is what a flush keeps. Synchronous disks only. */
  discard(offset: number, length: number): void {
    const issued = this.cut.log.length, bytes = new Uint8Array(length);
    if (this.disk.discard(offset, length)) throw new Error("expected a synchronous disk");
    void this.disk.read(offset, bytes);
    this.#changes.push({ issued, offset, bytes, done: true });
  }

  truncate(size: number): Pending {
    const old = this.disk.size, from = Math.min(old, size), to = Math.max(old, size);
    // What is cut off may show the backing file while the resize is under way.
    const bytes = padded(size < old ? this.backing.subarray(from, to) : new Uint8Array(0), to - from);
    this.#changes.push({ issued: this.cut.log.length, offset: from, bytes, done: true });
    return this.#issue({ offset: from, bytes: new Uint8Array(to - from), size }, () => this.disk.truncate(size));
  }

  flush(): Pending {
    const covered = this.#changes.filter((change) => change.done);
    const note = (): void => { this.#guarantees.push({ at: this.cut.log.length, covered }); };
    const pending = this.disk.flush();
    return pending ? pending.then(note) : note();
  }

  /** What is wrong with `contents` after a cut before entry `at` of the log. */
  complaint(contents: Uint8Array, at: number): string | undefined {
    const guarantee = this.#guarantees.findLast((guarantee) => guarantee.at <= at);
    const base = this.#base(guarantee), sure = new Set(guarantee?.covered), later = this.#changes.filter((change) => !sure.has(change) && change.issued <= at);
    const sizes = [base.length, ...later.flatMap(({ size }) => size ?? [])];
    if (!sizes.includes(contents.length)) return `the disk has ${contents.length} bytes; expected ${sizes.join(" or ")}`;
    const expected = padded(base.subarray(0, contents.length), contents.length);
    if (Buffer.compare(contents, expected) === 0) return undefined;
    return firstWrong(contents, expected, later);
  }

  #base(guarantee: Guarantee | undefined): Uint8Array {
    if (guarantee === undefined) return this.initial;
    const known = this.#bases.get(guarantee);
    if (known !== undefined) return known;
    const base = guarantee.covered.reduce((bytes, change) => applied(change, bytes), this.initial);
    this.#bases.set(guarantee, base);
    return base;
  }

  #issue(what: Omit<GuestChange, "issued" | "done">, start: () => Pending): Pending {
    const change: GuestChange = { ...what, issued: this.cut.log.length, done: false };
    this.#changes.push(change);
    const pending = start();
    if (pending) return pending.then(() => { change.done = true; });
    change.done = true;
  }
}

function applied({ offset, bytes, size }: GuestChange, base: Uint8Array): Uint8Array {
  const result = size === undefined ? base.slice() : padded(base.subarray(0, size), size);
  result.set(bytes.subarray(0, Math.max(0, result.length - offset)), Math.min(offset, result.length));
  return result;
}

function firstWrong(contents: Uint8Array, expected: Uint8Array, later: readonly GuestChange[]): string | undefined {
  for (let i = 0; i < contents.length; i++) {
    if (contents[i] === expected[i]) continue;
    if (later.some(({ offset, bytes }) => i >= offset && bytes[i - offset] === contents[i])) continue;
    const news = later.flatMap(({ offset, bytes }) => (i >= offset && i < offset + bytes.length ? [bytes[i - offset]] : []));
    return `guest byte ${i} (0x${i.toString(16)}) is ${contents[i]}; flushed ${expected[i]}, written since: ${news.join(", ") || "nothing"}`;
  }
  return undefined;
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const into = new Uint8Array(length);
  into.set(bytes);
  return into;
}
