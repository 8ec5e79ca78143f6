import { encodeText } from "../../bytes/text.ts";
import { randomUuid } from "../../bytes/uuid.ts";
import { DiskError } from "../../errors.ts";
import type { Storage } from "../../storage.ts";
import { flush, truncate, write, type Task } from "../../task.ts";
import type { Creation } from "../creation.ts";
import { BLOCK_SIZE, ENTRY_SIZE, HeaderFields, LIMITS, SIGNATURE, SIGNATURE_AT, TYPE, UNALLOCATED, VERSION } from "./header.ts";

const SECTOR = 512, CHUNK = 2 ** 20;
const HEADER_SIZE = 0x180;

export interface VdiCreateOptions {
  /** Guest size in bytes. */
  readonly size: number;
  /** All blocks have their space from the beginning; the file is sparse where the storage can be. */
  readonly fixed?: boolean | undefined;
  /** A power of two from 512 bytes to 32 MiB. QEMU only reads the default, 1 MiB. */
  readonly blockSize?: number | undefined;
}

interface Layout { readonly size: number; readonly fixed: boolean; readonly blockSize: number; readonly blocks: number; readonly mapOffset: number; readonly dataOffset: number }

export const vdiCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "static", type: "boolean", help: "VDI static (pre-allocated) image", initial: "off" },
  ],
  plan(values) {
    const options = { size: Number(values["size"]), fixed: values["static"] === true };
    plan(options);
    return (into) => createVdi(into, options);
  },
};

/** Makes `file`, whatever it held, an empty VDI. The header comes last: a crash leaves no half image that opens. */
export function* createVdi(file: Storage, options: VdiCreateOptions): Task {
  const layout = plan(options), { blocks, mapOffset, dataOffset, fixed, blockSize } = layout;
  yield truncate(file, 0);
  yield truncate(file, fixed ? dataOffset + blocks * blockSize : dataOffset);
  for (let first = 0; first < blocks; first += CHUNK / ENTRY_SIZE) {
    const count = Math.min(CHUNK / ENTRY_SIZE, blocks - first), bytes = new Uint8Array(count * ENTRY_SIZE), view = new DataView(bytes.buffer);
    for (let i = 0; i < count; i++) view.setUint32(i * ENTRY_SIZE, fixed ? first + i : UNALLOCATED, true);
    yield write(file, mapOffset + first * ENTRY_SIZE, bytes);
  }
  yield flush(file, "the block map before the header of a new VDI");
  yield write(file, 0, formatHeader(layout));
  yield flush(file, "the new VDI");
}

/** Throws `invalid-argument` for what no image can have. */
function plan({ size, fixed = false, blockSize = BLOCK_SIZE }: VdiCreateOptions): Layout {
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "vdi", operation: "create" }); };
  const blocks = Math.ceil(size / blockSize), { min, max } = LIMITS.blockSize;
  if (!(size >= 0)) refuse(`${size} is no size of a disk`);
  if (!Number.isInteger(Math.log2(blockSize)) || blockSize < min || blockSize > max) refuse(`VDI blocks are a power of two from ${min} to ${max} bytes, not ${blockSize}`);
  if (size > LIMITS.size || blocks > LIMITS.blocks) refuse(`Unsupported VDI image size (size is 0x${size.toString(16)}, max supported is 0x${LIMITS.size.toString(16)})`);
  const mapOffset = HeaderFields.size, dataOffset = mapOffset + Math.ceil((blocks * ENTRY_SIZE) / SECTOR) * SECTOR;
  return { size, fixed, blockSize, blocks, mapOffset, dataOffset };
}

function formatHeader({ size, fixed, blockSize, blocks, mapOffset, dataOffset }: Layout): Uint8Array {
  const text = new Uint8Array(SIGNATURE_AT), none = new Uint8Array(16);
  text.set(encodeText("<<< disk86 Virtual Disk Image >>>\n"));
  return HeaderFields.format({
    text, signature: SIGNATURE, version: VERSION, headerSize: HEADER_SIZE, type: fixed ? TYPE.fixed : TYPE.dynamic, flags: 0, description: new Uint8Array(256),
    mapOffset, dataOffset, cylinders: 0, heads: 0, sectors: 0, sectorSize: SECTOR, unused: 0,
    size, blockSize, blockExtra: 0, blocks, allocated: fixed ? blocks : 0,
    // VirtualBox tells images apart by these.
    uuid: randomUuid(true), uuidModified: randomUuid(true), uuidLink: none, uuidParent: none, rest: new Uint8Array(56),
  });
}
