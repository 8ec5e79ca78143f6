import { encodeText } from "../../bytes/text.ts";
import { DiskError, type DiskErrorKind } from "../../errors.ts";
import type { BitmapInfo, Bitmaps } from "../../image.ts";
import { find } from "../../metadata/sparseBits.ts";
import type { Pending, Storage } from "../../storage.ts";
import { flush, TaskQueue, write, type Task } from "../../task.ts";
import { BitmapContents, checkBitmapSpace, writeRun } from "./bitmap-contents.ts";
import { BITMAP_FLAG, BITMAP_LIMITS, bitmapDirectory, bitmapName, formatBitmapDirectory, readBitmapDirectory, type BitmapEntry } from "./bitmap-directory.ts";
import { BITMAP_TABLE_ENTRY } from "./bitmap-table.ts";
import { EXTENSION, formatBitmaps } from "./extensions.ts";
import { AUTOCLEAR } from "./features.ts";
import type { Qcow2Header } from "./header.ts";
import { rewriteHeader } from "./header-write.ts";
import { clustersOf } from "./l2-entry.ts";
import type { Refcounts } from "./refcounts.ts";

/** Bytes of tables that are looked at when an image is opened: a hostile directory names the same one often. */
const TABLE_BUDGET = 64 * 2 ** 20;

interface Bitmap {
  readonly name: string;
  readonly nameBytes: Uint8Array;
  readonly granularityBits: number;
  enabled: boolean;
  readonly inconsistent: boolean;
  readonly contents: BitmapContents;
  /** As the file has it; a new one is not there yet. */
  readonly entry?: BitmapEntry;
  /** The file says that it is in use. */
  marked: boolean;
}

/**
 * The persistent bitmaps of one image. docs/interop/qcow2.rst, "Bitmaps". Before the guest's data is first changed those
 * that follow it are marked in use in the file; `store` writes what they say then, without the mark. Who finds the mark
 * knows that a writer died.
 */
export class Qcow2Bitmaps implements Bitmaps {
  readonly #marking = new TaskQueue();
  readonly #removed: BitmapContents[] = [];
  #following: readonly Bitmap[] = [];
  #unmarked = false;
  #changed = false;

  private constructor(readonly file: Storage, readonly header: Qcow2Header, private all: readonly Bitmap[], public size: number) {
    this.#follow();
  }

  static *open(file: Storage, header: Qcow2Header): Task<Qcow2Bitmaps> {
    const { clusterSize, size } = header;
    const all = (yield* readBitmapDirectory(file, header)).map((entry): Bitmap => ({
      name: bitmapName(entry.name), nameBytes: entry.name, granularityBits: entry.granularityBits,
      enabled: (entry.flags & BITMAP_FLAG.auto) !== 0, inconsistent: (entry.flags & BITMAP_FLAG.inUse) !== 0,
      contents: new BitmapContents(file, clusterSize, entry.granularityBits, size, { offset: entry.tableOffset, size: entry.tableSize }), entry, marked: false,
    }));
    return new Qcow2Bitmaps(file, header, all, size);
  }

  /** Before writing: a bitmap without a table that makes sense counts as inconsistent, so that it can be removed. */
  *verify(): Task {
    let budget = TABLE_BUDGET;
    const verified: Bitmap[] = [];
    for (const bitmap of this.all) {
      budget -= (bitmap.entry?.tableSize ?? 0) * BITMAP_TABLE_ENTRY;
      verified.push(bitmap.inconsistent || (budget >= 0 && (yield* bitmap.contents.intact())) ? bitmap : { ...bitmap, inconsistent: true });
    }
    this.all = verified;
    this.#follow();
  }

  /** Clusters that hold the directory and the tables. */
  *metadata(): Iterable<number> {
    const place = bitmapDirectory(this.header);
    if (place !== undefined) yield* clustersOf(place.offset, place.size, this.header.clusterSize);
    for (const { entry } of this.all) if (entry !== undefined) yield* clustersOf(entry.tableOffset, entry.tableSize * BITMAP_TABLE_ENTRY, this.header.clusterSize);
  }

  list(): BitmapInfo[] {
    return this.all.map(({ name, granularityBits, enabled, inconsistent }) => ({ name, granularity: 2 ** granularityBits, enabled, inconsistent }));
  }

  /** The guest is about to change a range: the bitmaps that follow it are marked in use first. */
  changing(guest: number, length: number): Pending {
    if (this.#following.length === 0 || length === 0) return;
    for (const { contents } of this.#following) contents.set(guest, length);
    this.#changed = true;
    if (this.#unmarked) return this.#marking.run(() => this.#mark(this.#following));
  }

  /** Before the disk's size changes: refused where a bitmap cannot follow. Then all are marked, since their lengths will be wrong. */
  *beforeResize(size: number): Task {
    if (size === this.size) return;
    for (const bitmap of this.all) checkBitmapSpace(size, usable(bitmap).granularityBits, BITMAP_LIMITS.bytes);
    yield* this.#mark(this.all);
  }

  /** The disk has this size now. */
  resized(size: number): void {
    if (size === this.size || this.all.length === 0) return;
    this.size = size;
    for (const { contents } of this.all) contents.resize(size);
    this.#changed = true;
  }

  add(name: string, granularity: number, enabled = true): void {
    const { clusterSize, version } = this.header, nameBytes = encodeText(name);
    const bits = Math.log2(granularity === 0 ? Math.min(65536, Math.max(4096, clusterSize)) : granularity), { min, max } = BITMAP_LIMITS.granularity;
    if (!Number.isInteger(bits) || bits < min || bits > max) throw refused("Granularity must be power of 2 and at least 512");
    if (name === "") throw refused("Bitmap name cannot be empty");
    if (this.all.some((one) => one.name === name)) throw refused(`Bitmap already exists: ${name}`, "exists");
    if (nameBytes.length > BITMAP_LIMITS.name) throw refused(`Bitmap name is longer than ${BITMAP_LIMITS.name} bytes`);
    if (version < 3) throw refused(`Can't make bitmap '${name}' persistent in '${this.file.name}': Cannot store dirty bitmaps in qcow2 v2 files`, "unsupported");
    if (this.all.length >= BITMAP_LIMITS.bitmaps) throw refused("Maximum number of persistent bitmaps is already reached", "no-space");
    checkBitmapSpace(this.size, bits, BITMAP_LIMITS.bytes);
    this.#keep([...this.all, { name, nameBytes, granularityBits: bits, enabled, inconsistent: false, contents: new BitmapContents(this.file, clusterSize, bits, this.size), marked: false }]);
  }

  remove(name: string): void {
    const bitmap = this.#find(name);
    this.#removed.push(bitmap.contents);
    this.#keep(this.all.filter((other) => other !== bitmap));
  }

  clear(name: string): void {
    usable(this.#find(name)).contents.clear();
    this.#keep(this.all);
  }

  enable(name: string, enabled: boolean): void {
    usable(this.#find(name)).enabled = enabled;
    this.#keep(this.all);
  }

  *merge(name: string, from: Bitmaps, source: string): Task {
    const into = usable(this.#find(name)).contents;
    // Found and usable is asked first, as QEMU does.
    let dirty = yield* from.nextDirty(source, 0);
    if (from.size !== this.size) throw refused(`Bitmaps are of different sizes (destination size is ${this.size}, source size is ${from.size}) and can't be merged`);
    for (; dirty !== undefined; dirty = yield* from.nextDirty(source, dirty.offset + dirty.length)) into.set(dirty.offset, dirty.length);
    this.#keep(this.all);
  }

  *nextDirty(name: string, offset: number): Task<{ readonly offset: number; readonly length: number } | undefined> {
    const { contents, granularityBits } = usable(this.#find(name)), granularity = 2 ** granularityBits;
    for (let index = Math.floor(offset / contents.coverage); index < contents.pages; index++) {
      const page = yield* contents.page(index), start = index * contents.coverage;
      const end = Math.ceil(Math.min(this.size - start, contents.coverage) / granularity), from = Math.max(0, Math.floor((offset - start) / granularity));
      const first = find(page, from, end, true), at = Math.max(offset, start + first * granularity);
      if (first < end) return { offset: at, length: Math.min(this.size, start + find(page, first, end, false) * granularity) - at };
    }
    return undefined;
  }

  /**
   * Once, when the image is closed: data, tables and a directory in new places; the header points there; and only then
   * are the old ones given back.
   */
  *store(refcounts: Refcounts): Task {
    if (!this.#changed) return;
    const { clusterSize } = this.header, taken: number[] = [], dropped: number[] = [];
    let directory: { readonly offset: number; readonly bytes: Uint8Array };
    try {
      const bytes = formatBitmapDirectory(yield* this.#storeContents(refcounts, taken, dropped));
      if (bytes.length > BITMAP_LIMITS.directory) throw refused("Not enough space in the bitmap directory", "no-space");
      directory = { bytes, offset: bytes.length === 0 ? 0 : yield* writeRun(this.file, refcounts, clusterSize, bytes, taken) };
    } catch (error) {
      yield* refcounts.release(taken);
      throw error;
    }
    yield* refcounts.writeBack();
    const old = bitmapDirectory(this.header);
    if (old !== undefined) dropped.push(...clustersOf(old.offset, old.size, clusterSize));
    yield* this.#pointHeaderAt(directory.offset, directory.bytes.length);
    refcounts.unprotect(dropped);
    yield* refcounts.release(dropped);
    yield* refcounts.writeBack();
    this.#changed = false;
  }

  *#storeContents(refcounts: Refcounts, taken: number[], dropped: number[]): Task<Omit<BitmapEntry, "flagsAt">[]> {
    const entries: Omit<BitmapEntry, "flagsAt">[] = [];
    for (const { contents, nameBytes: name, granularityBits, enabled, inconsistent, entry } of this.all) {
      const flags = enabled ? BITMAP_FLAG.auto : 0;
      if (inconsistent && entry !== undefined) entries.push({ ...entry, flags: entry.flags | BITMAP_FLAG.inUse });
      else {
        const { offset: tableOffset, size: tableSize } = yield* contents.store(refcounts, taken, dropped);
        entries.push({ name, tableOffset, tableSize, flags, granularityBits });
      }
    }
    for (const contents of this.#removed) yield* contents.drop(dropped);
    return entries;
  }

  *#pointHeaderAt(offset: number, length: number): Task {
    const count = this.all.length;
    yield* rewriteHeader(this.file, (draft) => {
      const extension = { type: EXTENSION.bitmaps, data: formatBitmaps(count, length, offset) }, at = draft.extensions.findIndex(({ type }) => type === EXTENSION.bitmaps);
      if (count === 0) draft.extensions = draft.extensions.filter(({ type }) => type !== EXTENSION.bitmaps);
      else if (at < 0) draft.extensions.push(extension);
      else draft.extensions[at] = extension;
      draft.autoclear = count === 0 ? draft.autoclear & ~AUTOCLEAR.bitmaps : draft.autoclear | AUTOCLEAR.bitmaps;
    });
  }

  *#mark(bitmaps: readonly Bitmap[]): Task {
    const due = bitmaps.filter(({ marked, inconsistent, entry }) => !marked && !inconsistent && entry !== undefined), place = bitmapDirectory(this.header);
    if (due.length === 0) return;
    // Whatever fails from here on, the marks have to go when the image is closed.
    this.#changed = true;
    for (const { entry } of due) {
      if (entry !== undefined && place !== undefined) yield write(this.file, place.offset + entry.flagsAt + 3, Uint8Array.of(entry.flags | BITMAP_FLAG.inUse));
    }
    yield flush(this.file, "bitmaps are marked in use before the guest's data changes");
    for (const bitmap of due) bitmap.marked = true;
    this.#follow();
  }

  #keep(all: readonly Bitmap[]): void {
    this.all = all;
    this.#changed = true;
    this.#follow();
  }

  #follow(): void {
    this.#following = this.all.filter(({ enabled, inconsistent }) => enabled && !inconsistent);
    this.#unmarked = this.#following.some(({ marked, entry }) => !marked && entry !== undefined);
  }

  #find(name: string): Bitmap {
    const bitmap = this.all.find((one) => one.name === name);
    if (bitmap === undefined) throw refused(`Dirty bitmap '${name}' not found`, "not-found");
    return bitmap;
  }
}

function usable(bitmap: Bitmap): Bitmap {
  if (bitmap.inconsistent) throw refused(`Bitmap '${bitmap.name}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap from disk`, "unsupported");
  return bitmap;
}

function refused(what: string, kind: DiskErrorKind = "invalid-argument"): DiskError {
  return new DiskError(kind, what, { format: "qcow2" });
}
