import type { Allocation, Image } from "../../image.ts";
import { BlockImage } from "../../metadata/blockImage.ts";
import type { BlockMap } from "../../metadata/blockMap.ts";
import type { Storage } from "../../storage.ts";
import { write, type Task } from "../../task.ts";
import { HeaderFields, type VdiHeader } from "./header.ts";
import type { Space } from "./space.ts";

/** An open VDI; FORMAT.md tells the order of writes. */
export class VdiImage extends BlockImage {
  protected readonly noResize = "a VDI image cannot be resized: convert it to qcow2, or use VBoxManage modifymedium --resize";
  /** A fixed image may have holes in its file, for which a listing asks the file system; as QEMU it does not ask for a dynamic one. */
  readonly layout?: NonNullable<Image["layout"]>;
  /** As the header has it. */
  #counted: number;

  /** `space`: empty for an image that is only read. */
  constructor(storage: Storage, readonly header: VdiHeader, blocks: BlockMap, readonly space: Space) {
    super(storage, header.size, blocks);
    this.#counted = header.allocated;
    if (!header.fixed) this.layout = (offset, length) => this.map(offset, length);
  }

  protected override take(limit: number): { offset: number; count: number } {
    const { number, count } = this.space.take(limit);
    return { offset: this.header.dataOffset + number * this.blockSize, count };
  }

  override abandon({ length, offset }: Allocation): void {
    this.space.give((offset - this.header.dataOffset) / this.blockSize, length / this.blockSize);
  }

  /** A count too low would have QEMU give a block away twice: it is never behind the map. */
  protected override *beforeMap(): Task {
    const { end } = this.space, bytes = new Uint8Array(4);
    if (end === this.#counted) return;
    new DataView(bytes.buffer).setUint32(0, end, true);
    yield write(this.storage, HeaderFields.offsetOf("allocated"), bytes);
    this.#counted = end;
  }
}
