import { DiskError } from "../errors.ts";

/** Huffman codes have at most 20 bits; a group of symbols shares one table. */
const MAX_CODE = 20, GROUP = 50, RUN_A = 0, RUN_B = 1;
const STREAM = 0x425a68, BLOCK_HIGH = 0x314159, BLOCK_LOW = 0x265359, END_HIGH = 0x177245, END_LOW = 0x385090;

/**
 * Unpacks bzip2 (one stream or several in a row) and fills `into` exactly; what follows in `packed` is ignored. Every block's
 * checksum is verified. Takes up to 4 MB besides. Throws `DiskError` `corrupt` if the data is invalid, ends early or is
 * longer than `into`, which is then undefined. Not re-entrant; being synchronous, it need not be.
 *
 * There is no specification; the format is that of Julian Seward's bzip2 1.0.
 */
export function bunzip2(packed: Uint8Array, into: Uint8Array): void {
  const bits = new Bits(packed);
  let done = 0;
  while (done < into.length) {
    if (bits.take(24) !== STREAM) throw damaged("is not bzip2");
    const level = bits.take(8) - 0x30;
    if (level < 1 || level > 9) throw damaged("has an impossible block size");
    done = unpackStream(bits, level * 100_000, into, done);
    bits.align();
  }
}

/** One stream, to its end mark; answers how much of `into` is filled then. */
function unpackStream(bits: Bits, blockSize: number, into: Uint8Array, done: number): number {
  let checksum = 0;
  for (;;) {
    const high = bits.take(24), low = bits.take(24), expected = bits.take32();
    if (high === END_HIGH && low === END_LOW) {
      if (expected !== checksum) throw damaged("has a wrong checksum");
      return done;
    }
    if (high !== BLOCK_HIGH || low !== BLOCK_LOW) throw damaged("has no block where one should be");
    const from = done;
    done = unpackBlock(bits, blockSize, into, done);
    if (crc(into, from, done) !== expected) throw damaged("has a wrong checksum");
    checksum = (((checksum << 1) | (checksum >>> 31)) ^ expected) >>> 0;
  }
}

function unpackBlock(bits: Bits, blockSize: number, into: Uint8Array, done: number): number {
  if (bits.take(1) !== 0) throw damaged("is of bzip2 0.9.0 (randomised), which is not supported");
  const origin = bits.take(24), symbols = symbolsInUse(bits);
  const tableCount = bits.take(3), selectorCount = bits.take(15);
  if (symbols.length === 0 || tableCount < 2 || tableCount > 6 || selectorCount === 0) throw damaged("has impossible tables");
  const selectors = readSelectors(bits, selectorCount, tableCount);
  const codes = Array.from({ length: tableCount }, () => new Code(bits, symbols.length + 2));
  const cells = (work ??= new Uint32Array(900_000)), length = readSymbols(bits, codes, selectors, symbols, cells.subarray(0, blockSize));
  if (origin >= length) throw damaged("has an impossible origin");
  return writeRuns(cells, length, origin, into, done);
}

/** The last column of the sorted rotations, and then their links. */
let work: Uint32Array | undefined;

/** Which bytes occur, from two levels of bit maps. */
function symbolsInUse(bits: Bits): Uint8Array {
  const symbols: number[] = [], groups = bits.take(16);
  for (let group = 0; group < 16; group++) {
    const used = (groups >> (15 - group)) & 1 ? bits.take(16) : 0;
    for (let i = 0; i < 16; i++) if ((used >> (15 - i)) & 1) symbols.push(group * 16 + i);
  }
  return Uint8Array.from(symbols);
}

/** Which table each group of symbols uses: move-to-front positions in unary. */
function readSelectors(bits: Bits, count: number, tableCount: number): Uint8Array {
  const selectors = new Uint8Array(count), order = Uint8Array.from({ length: tableCount }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    let at = 0;
    while (bits.take(1) === 1) if (++at >= tableCount) throw damaged("has an impossible table number");
    selectors[i] = moveToFront(order, at);
  }
  return selectors;
}

function moveToFront(order: Uint8Array, at: number): number {
  const value = order[at] ?? 0;
  order.copyWithin(1, 0, at);
  order[0] = value;
  return value;
}

/** A canonical Huffman code. */
class Code {
  /** For each length: one more than its last code, aligned to `MAX_CODE` bits; and where its symbols begin, less its first code. */
  readonly #limits = new Uint32Array(MAX_CODE + 2);
  readonly #bases = new Int32Array(MAX_CODE + 2);
  readonly #symbols: Uint16Array;
  #shortest = MAX_CODE;

  constructor(bits: Bits, symbolCount: number) {
    const lengths = new Uint8Array(symbolCount);
    let length = bits.take(5);
    for (let i = 0; i < symbolCount; i++) {
      for (;;) {
        if (length < 1 || length > MAX_CODE) throw damaged("has an impossible code length");
        if (bits.take(1) === 0) break;
        length += bits.take(1) === 0 ? 1 : -1;
      }
      lengths[i] = length;
    }
    this.#symbols = new Uint16Array(symbolCount);
    this.#assign(lengths);
  }

  #assign(lengths: Uint8Array): void {
    let code = 0, at = 0;
    for (let length = 1; length <= MAX_CODE; length++) {
      this.#bases[length] = at - code;
      for (const [symbol, its] of lengths.entries()) {
        if (its !== length) continue;
        this.#shortest = Math.min(this.#shortest, length);
        this.#symbols[at++] = symbol;
        code++;
      }
      this.#limits[length] = code * 2 ** (MAX_CODE - length);
      code *= 2;
    }
    this.#limits[MAX_CODE + 1] = 2 ** 32 - 1;
  }

  read(bits: Bits): number {
    const next = bits.peek20();
    let length = this.#shortest;
    while (next >= (this.#limits[length] ?? 0)) length++;
    if (length > MAX_CODE) throw damaged("has an impossible code");
    bits.skip(length);
    return this.#symbols[(this.#bases[length] ?? 0) + (next >>> (MAX_CODE - length))] ?? 0;
  }
}

/** Undoes Huffman's code, the runs and the move-to-front; answers how many bytes that gave, one in each of `cells`. */
function readSymbols(bits: Bits, codes: readonly Code[], selectors: Uint8Array, symbols: Uint8Array, cells: Uint32Array): number {
  const order = symbols.slice(), end = symbols.length + 1;
  let length = 0, run = 0, weight = 1;
  for (let group = 0; group < selectors.length; group++) {
    const code = codes[selectors[group] ?? 0] as Code;
    for (let i = 0; i < GROUP; i++) {
      const symbol = code.read(bits);
      if (symbol <= RUN_B) {
        run += weight * (symbol === RUN_A ? 1 : 2);
        weight *= 2;
        if (run > cells.length) throw damaged("has too long a run");
        continue;
      }
      if (run > 0) {
        if (length + run > cells.length) throw damaged("has too long a block");
        cells.fill(order[0] ?? 0, length, length + run);
        length += run;
        [run, weight] = [0, 1];
      }
      if (symbol === end) return length;
      if (length === cells.length) throw damaged("has too long a block");
      cells[length++] = moveToFront(order, symbol - 1);
    }
  }
  throw damaged("has no end of a block");
}

/** Undoes the sorting (Burrows and Wheeler), and the runs that were packed before it: four equal bytes, then how many more. */
function writeRuns(cells: Uint32Array, length: number, origin: number, into: Uint8Array, done: number): number {
  link(cells, length);
  let cell = cells[(cells[origin] ?? 0) >>> 8] ?? 0, last = -1, equal = 0;
  for (let i = 0; i < length; i++) {
    const byte = cell & 0xff;
    cell = cells[cell >>> 8] ?? 0;
    if (equal === 4) {
      if (done + byte > into.length) throw damaged("is longer than it should be");
      into.fill(last, done, done + byte);
      done += byte;
      [equal, last] = [0, -1];
      continue;
    }
    equal = byte === last ? equal + 1 : 1;
    last = byte;
    if (done === into.length) throw damaged("is longer than it should be");
    into[done++] = byte;
  }
  return done;
}

/** Above each byte, in the upper 24 bits, the place of the one that follows it. */
function link(cells: Uint32Array, length: number): void {
  const starts = new Uint32Array(257);
  for (let i = 0; i < length; i++) {
    const next = ((cells[i] ?? 0) & 0xff) + 1;
    starts[next] = (starts[next] ?? 0) + 1;
  }
  for (let byte = 1; byte <= 256; byte++) starts[byte] = (starts[byte] ?? 0) + (starts[byte - 1] ?? 0);
  for (let i = 0; i < length; i++) {
    const byte = (cells[i] ?? 0) & 0xff, at = starts[byte] ?? 0;
    starts[byte] = at + 1;
    cells[at] = (((cells[at] ?? 0) & 0xff) | (i << 8)) >>> 0;
  }
}

/** The packed bytes as a row of bits, the highest of each byte first. */
class Bits {
  #at = 0;
  /** The bits read but not used, in the low `#count`. */
  #held = 0;
  #count = 0;

  constructor(readonly bytes: Uint8Array) {}

  /** `count`: 1 to 24. */
  take(count: number): number {
    while (this.#count < count) this.#more();
    this.#count -= count;
    return (this.#held >>> this.#count) & (2 ** count - 1);
  }

  take32(): number {
    return this.take(16) * 2 ** 16 + this.take(16);
  }

  /** The next 20 bits, zeros behind the end. */
  peek20(): number {
    while (this.#count < MAX_CODE && this.#at < this.bytes.length) this.#more();
    const missing = MAX_CODE - this.#count;
    return (missing > 0 ? this.#held << missing : this.#held >>> -missing) & (2 ** MAX_CODE - 1);
  }

  skip(count: number): void {
    if (count > this.#count) throw damaged("ends early");
    this.#count -= count;
  }

  /** To the next whole byte. */
  align(): void {
    this.#count -= this.#count % 8;
  }

  #more(): void {
    const byte = this.bytes[this.#at++];
    if (byte === undefined) throw damaged("ends early");
    this.#held = ((this.#held << 8) | byte) >>> 0;
    this.#count += 8;
  }
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc < 0 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});

function crc(bytes: Uint8Array, from: number, to: number): number {
  let crc = -1;
  for (let i = from; i < to; i++) crc = (crc << 8) ^ (CRC[(crc >>> 24) ^ (bytes[i] ?? 0)] ?? 0);
  return ~crc >>> 0;
}

function damaged(what: string): DiskError {
  return new DiskError("corrupt", `compressed data ${what}: the image is damaged`, { operation: "bunzip2" });
}
