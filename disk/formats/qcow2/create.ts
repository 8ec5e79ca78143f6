import { setU64 } from "../../bytes/struct.ts";
import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import { EXTENSION, formatExtensions, formatFeatureNames, type Extension } from "./extensions.ts";
import { AUTOCLEAR, COMPATIBLE, FEATURE_NAMES, INCOMPATIBLE } from "./features.ts";
import { HeaderFields, HeaderFields3, LIMITS, MAGIC, V2_LENGTH } from "./header.ts";
import { refcountWidth } from "./refcount-bits.ts";

export interface Qcow2CreateOptions {
  /** Guest size in bytes; rounded up to a multiple of 512. */
  readonly size: number;
  /** 2 (`compat=0.10`) or 3 (`compat=1.1`, the default). */
  readonly version?: 2 | 3 | undefined;
  /** A power of two from 512 bytes to 2 MiB; default 64 KiB. */
  readonly clusterSize?: number | undefined;
  /** A power of two from 1 to 64; default 16, the only one in version 2. */
  readonly refcountBits?: number | undefined;
  readonly compressionType?: "zlib" | "zstd" | undefined;
  /** Allows later writers to delay refcounts; we never do. */
  readonly lazyRefcounts?: boolean | undefined;
  /** Entries with 32 subclusters; clusters of 16 KiB at least. */
  readonly extendedL2?: boolean | undefined;
  /** The guest's data stands in this file; with `dataFileRaw` it alone is a raw image of the disk. */
  readonly dataFile?: string | undefined;
  readonly dataFileRaw?: boolean | undefined;
  /** As it is to stand in the image: relative to the image's own place, or absolute, or a URL. */
  readonly backingFile?: string | undefined;
  readonly backingFormat?: string | undefined;
}

/** Makes `file`, whatever it held, an empty qcow2 image. The header comes last: a crash leaves no half image that opens. */
export function* createQcow2(file: Storage, options: Qcow2CreateOptions): Task {
  const layout = plan(options);
  const { clusterSize, tableClusters, blocks, l1Size, used, order } = layout;
  yield truncate(file, 0);
  yield truncate(file, layout.l1Offset + l1Size * 8);
  const table = new Uint8Array(clusterSize), width = refcountWidth(order), perBlock = (clusterSize * 8) / 2 ** order;
  for (let block = 0; block < blocks; block++) {
    const at = (1 + tableClusters + block) * clusterSize, bytes = new Uint8Array(clusterSize), view = new DataView(bytes.buffer);
    for (let cluster = block * perBlock; cluster < Math.min(used, (block + 1) * perBlock); cluster++) width.set(view, cluster - block * perBlock, 1);
    yield write(file, at, bytes);
    setU64(new DataView(table.buffer), (block * 8) % clusterSize, at);
    const last = block + 1 === blocks || ((block + 1) * 8) % clusterSize === 0;
    if (last) yield write(file, clusterSize * (1 + Math.floor((block * 8) / clusterSize)), table.slice());
    if (last) table.fill(0);
  }
  yield flush(file, "tables before the header that points at them");
  // All of its cluster, so that the file takes as much of its device as QEMU's do: some judge by that.
  const header = new Uint8Array(clusterSize);
  header.set(formatHeader(options, layout));
  yield write(file, 0, header);
  yield flush(file, "the new image");
}

/** A subcluster is a sector at least. */
const EXTENDED_MIN = 32 * 512;

interface Layout {
  readonly version: 2 | 3; readonly size: number; readonly clusterSize: number; readonly order: number;
  readonly tableClusters: number; readonly blocks: number; readonly l1Size: number; readonly l1Offset: number; readonly used: number;
}

/** Throws `invalid-argument` for options that no image can have. */
export function checkCreateOptions(options: Qcow2CreateOptions): void {
  formatHeader(options, plan(options));
}

/** Header, refcount table, refcount blocks, L1, one after the other. */
function plan(options: Qcow2CreateOptions): Layout {
  const { version = 3, clusterSize = 65536, refcountBits = 16 } = options;
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "qcow2", operation: "create" }); };
  const order = Math.log2(refcountBits), size = Math.ceil(options.size / 512) * 512;
  if (!(Number.isInteger(Math.log2(clusterSize)) && clusterSize >= 512 && clusterSize <= 2 ** 21)) refuse(`Cluster size must be a power of two between 512 and 2048k, not ${clusterSize}`);
  if (!(Number.isInteger(order) && refcountBits <= 64)) refuse(`Refcount width must be a power of two and may not exceed 64 bits, not ${refcountBits}`);
  if (version < 3 && order !== 4) refuse("Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)");
  if (version < 3 && (options.compressionType === "zstd" || options.lazyRefcounts === true)) refuse("zstd and lazy refcounts are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
  if (options.extendedL2 === true && version < 3) refuse("Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
  if (options.extendedL2 === true && clusterSize < EXTENDED_MIN) refuse(`Extended L2 entries are only supported with cluster sizes of at least ${EXTENDED_MIN} bytes`);
  if (options.dataFile !== undefined && version < 3) refuse("External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)");
  if (options.dataFileRaw === true && options.dataFile === undefined) refuse("data-file-raw requires data-file");
  if (options.dataFileRaw === true && options.backingFile !== undefined) refuse("Backing file and data-file-raw cannot be used at the same time");
  if (!(size >= 0)) refuse(`${options.size} is no size of a disk`);
  const l1Size = Math.ceil(size / (clusterSize * (clusterSize / (options.extendedL2 === true ? 16 : 8))));
  if (l1Size * 8 > LIMITS.l1Bytes) refuse("The image size is too large for file format 'qcow2' (try using a larger cluster size)");
  if (!Number.isSafeInteger(size)) refuse(`a disk of ${options.size} bytes is larger than disk86 can address (8 PiB)`);
  const l1Clusters = Math.ceil((l1Size * 8) / clusterSize), perBlock = (clusterSize * 8) / refcountBits;
  let blocks = 1, tableClusters = 1;
  for (;;) {
    tableClusters = Math.ceil((blocks * 8) / clusterSize);
    if (1 + tableClusters + blocks + l1Clusters <= blocks * perBlock) break;
    blocks++;
  }
  return { version, size, clusterSize, order, tableClusters, blocks, l1Size, l1Offset: (1 + tableClusters + blocks) * clusterSize, used: 1 + tableClusters + blocks + l1Clusters };
}

const flag = (set: boolean | undefined, bit: bigint): bigint => (set === true ? bit : 0n);

function formatHeader(options: Qcow2CreateOptions, layout: Layout): Uint8Array {
  const { version, clusterSize } = layout, zstd = options.compressionType === "zstd";
  const headerLength = version === 2 ? V2_LENGTH : V2_LENGTH + HeaderFields3.size;
  const extensions: Extension[] = [];
  if (options.backingFormat !== undefined) extensions.push({ type: EXTENSION.backingFormat, data: encodeText(options.backingFormat) });
  if (options.dataFile !== undefined) extensions.push({ type: EXTENSION.dataFile, data: encodeText(options.dataFile) });
  const name = encodeText(options.backingFile ?? ""), names: Extension = { type: EXTENSION.featureNames, data: formatFeatureNames(FEATURE_NAMES) };
  // The names are a courtesy: in the smallest clusters the backing file's name may need their room.
  const roomForNames = headerLength + formatExtensions([...extensions, names]).length + name.length <= clusterSize;
  if (version === 3 && roomForNames) extensions.push(names);
  const tail = formatExtensions(extensions), nameAt = headerLength + tail.length;
  if (name.length > LIMITS.backingName || nameAt + name.length > clusterSize) {
    throw new DiskError("invalid-argument", `the backing file name is too long: ${name.length} bytes; at most ${Math.min(LIMITS.backingName, clusterSize - nameAt)} fit`, { format: "qcow2", operation: "create" });
  }
  const header = new Uint8Array(nameAt + name.length);
  header.set(HeaderFields.format({
    magic: MAGIC, version, backingOffset: name.length > 0 ? nameAt : 0, backingLength: name.length,
    clusterBits: Math.log2(clusterSize), size: layout.size, crypt: 0, l1Size: layout.l1Size, l1Offset: layout.l1Offset,
    refcountTableOffset: clusterSize, refcountTableClusters: layout.tableClusters, snapshotCount: 0, snapshotsOffset: 0,
  }));
  if (version === 3) {
    header.set(HeaderFields3.format({
      incompatible: flag(zstd, INCOMPATIBLE.compressionType) | flag(options.extendedL2, INCOMPATIBLE.extendedL2) | flag(options.dataFile !== undefined, INCOMPATIBLE.externalData),
      compatible: flag(options.lazyRefcounts, COMPATIBLE.lazyRefcounts), autoclear: flag(options.dataFileRaw, AUTOCLEAR.rawExternalData),
      refcountOrder: layout.order, headerLength, compressionType: zstd ? 1 : 0, padding: new Uint8Array(7),
    }), V2_LENGTH);
  }
  header.set(tail, headerLength);
  header.set(name, nameAt);
  return header;
}
