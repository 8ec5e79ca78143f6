/** What a block was packed to, now or later, if that is smaller than the block; `undefined`: it does not shrink. */
export function smaller(block: Uint8Array, packed: Uint8Array | Promise<Uint8Array>): Uint8Array | undefined | Promise<Uint8Array | undefined> {
  if (packed instanceof Promise) return packed.then((bytes) => (bytes.length < block.length ? bytes : undefined));
  return packed.length < block.length ? packed : undefined;
}
