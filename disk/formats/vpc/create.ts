import { encodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { Creation } from "../creation.ts";
import { MAX_SECTORS, newFooter, NOWHERE, SECTOR, sealed, TYPE, VERSION } from "./footer.ts";
import { geometryFor, geometryOf, sectorsOf, type Geometry } from "./geometry.ts";
import { ENTRY_SIZE, SPARSE_COOKIE, SparseFields } from "./header.ts";

const CHUNK = 2 ** 20, BLOCK_SIZE = 2 * 2 ** 20;
const SUBFORMATS = new Set(["dynamic", "fixed"]);

export interface VpcCreateOptions {
  /** Guest size in bytes; rounded up to whole sectors, and without `forceSize` to a geometry. */
  readonly size: number;
  readonly fixed?: boolean | undefined;
  /** The disk has exactly this size. Virtual PC would not see all of it. */
  readonly forceSize?: boolean | undefined;
  /** A power of two from 512 bytes on; default 2 MiB. */
  readonly blockSize?: number | undefined;
}

interface Layout { readonly size: number; readonly geometry: Geometry; readonly fixed: boolean; readonly forceSize: boolean; readonly blockSize: number; readonly entries: number }

export const vpcCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    // The blank at the end is QEMU's.
    { name: "subformat", type: "string", help: "Type of virtual hard disk format. Supported formats are {dynamic (default) | fixed} " },
    { name: "force_size", type: "boolean", help: "Force disk size calculation to use the actual size specified, rather than using the nearest CHS-based calculation" },
  ],
  plan(values) {
    const subformat = values["subformat"] ?? "dynamic";
    if (!SUBFORMATS.has(String(subformat))) throw refused(`Parameter 'subformat' does not accept value '${String(subformat)}'`);
    const options = { size: Number(values["size"]), fixed: subformat === "fixed", forceSize: values["force_size"] === true };
    plan(options);
    return (into) => createVpc(into, options);
  },
};

/** Makes `file`, whatever it held, an empty VHD. The footer, or its copy at the beginning, comes last. */
export function* createVpc(file: Storage, options: VpcCreateOptions): Task {
  const layout = plan(options), { size, fixed, geometry, forceSize } = layout, footer = newFooter(fixed ? TYPE.fixed : TYPE.dynamic, size, geometry, forceSize);
  yield truncate(file, 0);
  if (fixed) yield truncate(file, size);
  else yield* writeTables(file, layout);
  yield flush(file, "an empty disk before the footer of a new VHD");
  yield write(file, fixed ? size : 0, footer);
  if (!fixed) yield write(file, file.size, footer);
  yield flush(file, "the new VHD");
}

/** The dynamic disk header, and a BAT where no block has space. */
function* writeTables(file: Storage, { blockSize, entries }: Layout): Task {
  const batOffset = SECTOR + SparseFields.size, length = Math.ceil((entries * ENTRY_SIZE) / SECTOR) * SECTOR;
  const header = SparseFields.format({
    cookie: encodeText(SPARSE_COOKIE), dataOffset: NOWHERE, batOffset, version: VERSION, entries, blockSize, checksum: 0,
    parentUuid: new Uint8Array(16), parentTimestamp: 0, reserved: 0, parentName: new Uint8Array(512), locators: new Uint8Array(192), rest: new Uint8Array(256),
  });
  yield write(file, SECTOR, sealed(header, SparseFields.offsetOf("checksum")));
  for (let at = 0; at < length; at += CHUNK) yield write(file, batOffset + at, new Uint8Array(Math.min(CHUNK, length - at)).fill(0xff));
}

/** Throws `invalid-argument` for what no image can have. */
function plan({ size, fixed = false, forceSize = false, blockSize = BLOCK_SIZE }: VpcCreateOptions): Layout {
  if (!(size >= 0)) throw refused(`${size} is no size of a disk`);
  if (!Number.isInteger(Math.log2(blockSize)) || blockSize < SECTOR) throw refused(`VHD blocks are a power of two from ${SECTOR} bytes on, not ${blockSize}`);
  const wanted = Math.ceil(size / SECTOR), geometry = forceSize ? geometryOf(Infinity) : geometryFor(wanted);
  const sectors = sectorsOf(geometry) === sectorsOf(geometryOf(Infinity)) ? wanted : sectorsOf(geometry);
  if (sectors > MAX_SECTORS) throw refused("The image size is too large for file format 'vpc'");
  return { size: sectors * SECTOR, geometry, fixed, forceSize, blockSize, entries: Math.ceil((sectors * SECTOR) / blockSize) };
}

function refused(what: string): DiskError {
  return new DiskError("invalid-argument", what, { format: "vpc", operation: "create" });
}
