import { MemoryStorage } from "../../disk/storage/memory.ts";
import { apply, epochs, pieces, type Change, type PowerCutStorage } from "../support/powercut.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";

/** A file as a power cut left it, and its data file. `at`: the cut came before entry `at` of the log. `text`: what was kept, for messages. */
export interface CrashState { readonly bytes: Uint8Array; readonly data?: Uint8Array; readonly at: number; readonly text: string }

/** Up to this many changes between two flushes, every subset is tried. */
const ALL_SUBSETS = process.env["LONG"] ? 11 : 7;
const ALL_PAIRS = process.env["LONG"] ? 60 : 16;

/**
 * Every file that a power cut may leave, as far as it can be enumerated: for each stretch between two flushes, all
 * subsets of its changes where they are few, otherwise prefixes, suffixes, every one alone kept or lost, pairs, and
 * all subsets by what the changes are (data, L2, refcounts...); and every write of several sectors torn.
 * A cut within a stretch keeps a subset of the changes up to there, which is a subset of the whole stretch, too.
 */
export function* crashStates(cut: PowerCutStorage): Generator<CrashState> {
  const durable = new Files(cut.initial, cut.data?.initial);
  for (const { changes, settled, to } of epochs(cut.log)) {
    const kinds = changes.map((change) => kindOf(change, cut));
    for (const kept of choices(changes, kinds)) {
      const state = new Files(durable.image.bytes, durable.data?.bytes);
      for (const change of kept) state.apply(change);
      yield { bytes: state.image.bytes, ...(state.data && { data: state.data.bytes }), at: to, text: describe(kept, changes.length, cut) };
    }
    for (const change of settled) durable.apply(change);
  }
}

/** Copies of an image's file, and of its data file if it has one. */
class Files {
  readonly image: MemoryStorage;
  readonly data: MemoryStorage | undefined;

  constructor(image: Uint8Array, data: Uint8Array | undefined) {
    this.image = new MemoryStorage(image.slice());
    this.data = data && new MemoryStorage(data.slice());
  }

  apply(change: Change): void {
    apply(change, change.file === "data" && this.data !== undefined ? this.data : this.image);
  }
}

function* choices(changes: readonly Change[], kinds: readonly string[]): Generator<Change[]> {
  const units = changes.flatMap((change) => pieces(change));
  if (units.length <= ALL_SUBSETS) {
    yield* allSubsets(units);
    return;
  }
  yield* changes.length <= ALL_SUBSETS ? allSubsets(changes) : chosenSubsets(changes, kinds);
  yield* torn(changes);
}

function* allSubsets(changes: readonly Change[]): Generator<Change[]> {
  for (let mask = 0; mask < 2 ** changes.length; mask++) yield changes.filter((_, i) => ((mask >> i) & 1) === 1);
}

function* chosenSubsets(changes: readonly Change[], kinds: readonly string[]): Generator<Change[]> {
  const seen = new Set<string>();
  const choose = (keep: (i: number) => boolean): Change[][] => {
    const key = changes.map((_, i) => (keep(i) ? "1" : "0")).join("");
    if (seen.has(key)) return [];
    seen.add(key);
    return [changes.filter((_, i) => keep(i))];
  };
  for (let n = 0; n <= changes.length; n++) {
    yield* choose((i) => i < n);
    yield* choose((i) => i >= n);
    yield* choose((i) => i === n);
    yield* choose((i) => i !== n);
  }
  const names = [...new Set(kinds)];
  for (let mask = 0; mask < 2 ** names.length; mask++) yield* choose((i) => ((mask >> names.indexOf(kinds[i] ?? "")) & 1) === 1);
  if (changes.length > ALL_PAIRS) return;
  for (let a = 0; a < changes.length; a++) {
    for (let b = 0; b < a; b++) {
      yield* choose((i) => i === a || i === b);
      yield* choose((i) => i !== a && i !== b);
    }
  }
}

/** Each write of several sectors in part: the rest of the stretch lost, kept, or kept up to here. */
function* torn(changes: readonly Change[]): Generator<Change[]> {
  for (const [index, change] of changes.entries()) {
    const parts = pieces(change), half = Math.floor(parts.length / 2);
    if (parts.length < 2) continue;
    const tears = [parts.slice(0, half), parts.slice(half), parts.slice(0, 1), parts.slice(1), parts.slice(0, -1)];
    for (const part of parts.length <= 3 ? tears.slice(2) : tears) {
      yield part;
      yield changes.flatMap((other, i) => (i === index ? part : [other]));
      yield [...changes.slice(0, index), ...part];
    }
  }
}

/** What the change is about, for subsets by kind. */
function kindOf(change: Change, cut: PowerCutStorage): string {
  if (change.file === "data") return "external data";
  if (change.op !== "write") return change.op;
  return roles(cut)(change.offset) ?? "free";
}

const known = new WeakMap<PowerCutStorage, (offset: number) => string | undefined>();

function roles(cut: PowerCutStorage): (offset: number) => string | undefined {
  let of = known.get(cut);
  if (of === undefined) {
    try {
      of = inspectQcow2(cut.bytes).role;
    } catch {
      of = () => undefined;
    }
    known.set(cut, of);
  }
  return of;
}

function describe(kept: readonly Change[], count: number, cut: PowerCutStorage): string {
  const one = (change: Change): string => {
    if (change.op === "truncate") return `truncate to ${change.size}`;
    const length = change.op === "write" ? change.bytes.length : change.length;
    return `${kindOf(change, cut)} 0x${change.offset.toString(16)}+${length}`;
  };
  return `kept of ${count} unflushed changes: ${kept.map(one).join(", ") || "none"}`;
}
