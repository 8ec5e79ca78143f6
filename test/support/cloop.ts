import { deflateSync } from "node:zlib";

const SCRIPT = "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/** A cloop image of `blocks`; equal ones may be the same array, and are then packed once. */
export function makeCloop(blockSize: number, blocks: readonly Uint8Array[]): Buffer {
  const packed = new Map<Uint8Array, Buffer>();
  for (const block of blocks) if (!packed.has(block)) packed.set(block, deflateSync(block));
  const all = blocks.map((block) => packed.get(block) ?? Buffer.alloc(0)), head = Buffer.alloc(136 + 8 * (blocks.length + 1));
  head.write(SCRIPT);
  head.writeUInt32BE(blockSize, 128);
  head.writeUInt32BE(blocks.length, 132);
  let at = head.length;
  for (let i = 0; i <= blocks.length; i++) {
    head.writeBigUInt64BE(BigInt(at), 136 + 8 * i);
    at += all[i]?.length ?? 0;
  }
  return Buffer.concat([head, ...all]);
}
