// node qcow2.mjs RAW QCOW2: writes a raw image as a compressed qcow2, so that a build needs no qemu-img.
//
// The same raw image gives the same bytes (for one version of Node's zlib). All metadata comes first, in the order
// header, refcount table, refcount blocks, L1 table, L2 tables, so that a reader far away gets it in one request.
// Zero clusters are not allocated. Written only once, from start to end: this is no general qcow2 driver.
import { closeSync, fstatSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import { promisify } from "node:util";
import { deflateRaw } from "node:zlib";

const CLUSTER_BITS = 16;
const CLUSTER = 1 << CLUSTER_BITS;
const L2_ENTRIES = CLUSTER / 8;
const REFCOUNTS_PER_BLOCK = CLUSTER / 2;
const HEADER_LENGTH = 104;
const COPIED = 2 ** 63; // the cluster belongs to this table alone
const COMPRESSED = 2 ** 62;
/** In a compressed cluster's entry the number of further 512-byte sectors stands above this many bits of offset. */
const OFFSET_BITS = 62 - (CLUSTER_BITS - 8);
/** Clusters compressed at a time; the thread pool works on them side by side. */
const BATCH = 64;

const deflate = promisify(deflateRaw);
const clusters = (/** @type {number} */ bytes) => Math.ceil(bytes / CLUSTER);

/** Hands out space behind the metadata; compressed clusters are packed byte to byte and may cross cluster borders. */
class Space {
  /** @param {number} start first free byte, at a cluster border */
  constructor(start) {
    this.end = start; // first cluster never used
    this.packed = start; // where the next compressed cluster would go ...
    this.packedEnd = start; // ... if it fits before this border
  }
  plain() {
    this.end += CLUSTER;
    return this.end - CLUSTER;
  }
  /** @param {number} length */
  compressed(length) {
    if (this.packed + length > this.packedEnd) {
      if (this.packedEnd !== this.end) this.packed = this.end;
      this.end = this.packedEnd = clusters(this.packed + length) * CLUSTER;
    }
    this.packed += length;
    return this.packed - length;
  }
}

/** Where each piece of metadata goes; all sizes are known beforehand. @param {number} size */
function layout(size) {
  const l2Count = Math.max(1, Math.ceil(size / (L2_ENTRIES * CLUSTER)));
  const l1Clusters = clusters(l2Count * 8);
  // Refcounts for the largest file this could become: every cluster stored plain.
  const others = 2 + l1Clusters + l2Count + clusters(size);
  const blockCount = Math.ceil(others / (REFCOUNTS_PER_BLOCK - 1));
  const refcountTable = CLUSTER;
  const blocks = refcountTable + CLUSTER;
  const l1 = blocks + blockCount * CLUSTER;
  const l2 = l1 + l1Clusters * CLUSTER;
  return { l2Count, blockCount, refcountTable, blocks, l1, l2, end: l2 + l2Count * CLUSTER };
}

/** A table of big-endian 64-bit entries. */
class Table {
  /** @param {number} entries */
  constructor(entries) {
    this.bytes = Buffer.alloc(clusters(entries * 8) * CLUSTER);
  }
  /** @param {number} index @param {number} flags a multiple of 2^32 @param {number} low below 2^53 */
  set(index, flags, low) {
    this.bytes.writeUInt32BE(flags / 2 ** 32 + Math.floor(low / 2 ** 32), index * 8);
    this.bytes.writeUInt32BE(low % 2 ** 32, index * 8 + 4);
  }
}

/** @param {number} size @param {ReturnType<typeof layout>} at */
function header(size, at) {
  const bytes = Buffer.alloc(CLUSTER);
  bytes.write("QFI\xfb", 0, "latin1");
  bytes.writeUInt32BE(3, 4); // version
  bytes.writeUInt32BE(CLUSTER_BITS, 20);
  bytes.writeBigUInt64BE(BigInt(size), 24);
  bytes.writeUInt32BE(at.l2Count, 36); // L1 size
  bytes.writeBigUInt64BE(BigInt(at.l1), 40);
  bytes.writeBigUInt64BE(BigInt(at.refcountTable), 48);
  bytes.writeUInt32BE(1, 56); // refcount table clusters
  bytes.writeUInt32BE(4, 96); // refcount order: 16 bits
  bytes.writeUInt32BE(HEADER_LENGTH, 100);
  return bytes;
}

/** The clusters of `file` that are not all zero. @param {number} file @param {number} size */
function* dataClusters(file, size) {
  const zero = Buffer.alloc(CLUSTER);
  const window = Buffer.alloc(BATCH * CLUSTER);
  for (let offset = 0; offset < size; offset += window.length) {
    const length = readSync(file, window, 0, Math.min(window.length, size - offset), offset);
    window.fill(0, length);
    for (let at = 0; at < length; at += CLUSTER) {
      const bytes = window.subarray(at, at + CLUSTER);
      if (!bytes.equals(zero)) yield { index: (offset + at) / CLUSTER, bytes: Buffer.from(bytes) };
    }
  }
}

/** @param {string} rawPath @param {string} qcow2Path */
async function convert(rawPath, qcow2Path) {
  const raw = openSync(rawPath, "r");
  const out = openSync(qcow2Path, "w");
  const size = Math.ceil(fstatSync(raw).size / 512) * 512;
  const at = layout(size);
  const space = new Space(at.end);
  const l1 = new Table(at.l2Count);
  const l2 = new Table(at.l2Count * L2_ENTRIES);
  const refcounts = new Uint16Array(at.blockCount * REFCOUNTS_PER_BLOCK);

  /** @param {number} offset @param {Buffer} bytes */
  const store = (offset, bytes) => {
    writeSync(out, bytes, 0, bytes.length, offset);
    const last = Math.floor((offset + bytes.length - 1) / CLUSTER);
    for (let cluster = Math.floor(offset / CLUSTER); cluster <= last; cluster++) refcounts[cluster]++;
  };

  /** @param {{ index: number, bytes: Buffer }[]} batch */
  const storeBatch = async (batch) => {
    const packed = await Promise.all(batch.map(({ bytes }) => deflate(bytes, { windowBits: 12 })));
    for (const [i, { index, bytes }] of batch.entries()) {
      const small = /** @type {Buffer} */ (packed[i]);
      if (small.length < CLUSTER) {
        const offset = space.compressed(small.length);
        const sectors = Math.floor((offset + small.length - 1) / 512) - Math.floor(offset / 512);
        store(offset, small);
        l2.set(index, COMPRESSED + sectors * 2 ** OFFSET_BITS, offset);
      } else {
        const offset = space.plain();
        store(offset, bytes);
        l2.set(index, COPIED, offset);
      }
    }
  };

  /** @type {{ index: number, bytes: Buffer }[]} */
  let batch = [];
  for (const cluster of dataClusters(raw, size)) {
    if (batch.push(cluster) === BATCH) {
      await storeBatch(batch);
      batch = [];
    }
  }
  await storeBatch(batch);

  for (let i = 0; i < at.l2Count; i++) l1.set(i, COPIED, at.l2 + i * CLUSTER);
  const table = new Table(at.blockCount);
  for (let i = 0; i < at.blockCount; i++) table.set(i, 0, at.blocks + i * CLUSTER);
  store(0, header(size, at));
  store(at.refcountTable, table.bytes);
  store(at.l1, l1.bytes);
  store(at.l2, l2.bytes);
  for (let i = 0; i < at.blockCount; i++) refcounts[at.blocks / CLUSTER + i]++;
  writeSync(out, Buffer.from(refcounts.buffer).swap16(), 0, refcounts.byteLength, at.blocks);
  // The last compressed cluster is read in whole sectors: let the file end at a cluster border.
  ftruncateSync(out, space.end);
  closeSync(raw);
  closeSync(out);
}

const [rawPath, qcow2Path] = process.argv.slice(2);
if (rawPath === undefined || qcow2Path === undefined) {
  console.error("usage: node qcow2.mjs RAW QCOW2");
  process.exit(2);
}
await convert(rawPath, qcow2Path);
