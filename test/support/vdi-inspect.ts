const MAP = 512;

/** What must never be: a number twice, too large, not counted, or of a block that the file does not have. Written without the driver. */
export function brokenVdi(bytes: Uint8Array): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset), word = (at: number): number => view.getUint32(at, true);
  const data = word(0x158), blockSize = word(0x178), blocks = word(0x180), count = word(0x184), seen = new Set<number>();
  for (let block = 0; block < blocks; block++) {
    const number = word(MAP + block * 4);
    if (number >= 0xffff_fffe) continue;
    if (seen.has(number)) return `block ${number} twice`;
    if (number >= blocks || data + number * blockSize >= bytes.length) return `block ${number} of ${blocks} cannot be`;
    if (number >= count) return `block ${number} is not counted: there are ${count}`;
    seen.add(number);
  }
  return undefined;
}
