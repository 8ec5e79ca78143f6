/** What the disk of a qed image holds, read without any of our own code. QEMU cannot open images with tables of one cluster. */
export function qedContents(file: Uint8Array, base: Uint8Array): Uint8Array {
  const view = Buffer.from(file.buffer, file.byteOffset, file.length), cluster = view.readUInt32LE(4), entries = (view.readUInt32LE(8) * cluster) / 8;
  const l1 = Number(view.readBigUInt64LE(40)), size = Number(view.readBigUInt64LE(48)), contents = new Uint8Array(size);
  for (let guest = 0; guest < size; guest += cluster) {
    const index = guest / cluster, table = Number(view.readBigUInt64LE(l1 + Math.floor(index / entries) * 8));
    const at = table === 0 ? 0 : Number(view.readBigUInt64LE(table + (index % entries) * 8)), length = Math.min(cluster, size - guest);
    if (at === 0) contents.set(base.subarray(guest, guest + length), guest);
    else if (at > 1) contents.set(file.subarray(at, at + length), guest);
  }
  return contents;
}
