/** What must never be: two entries for one place, one outside the data, one behind the end of the file. Written without the driver. */
export function brokenParallels(bytes: Uint8Array): string | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset), word = (at: number): number => view.getUint32(at, true), seen = new Set<number>();
  const unit = bytes[6] === 0x46 ? 512 * word(28) : 512, data = word(48) * 512;
  for (let i = 0; i < word(32); i++) {
    const at = word(64 + i * 4) * unit;
    if (at === 0) continue;
    if (seen.has(at)) return `two entries for ${at}`;
    if (at < data || (at - data) % (512 * word(28)) !== 0 || at >= bytes.length) return `an entry for ${at}`;
    seen.add(at);
  }
  return undefined;
}
