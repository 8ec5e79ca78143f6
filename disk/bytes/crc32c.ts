/** CRC-32C (Castagnoli, RFC 3720 appendix B.4) eight bytes at a time. */
const TABLES = Array.from({ length: 8 }, () => new Uint32Array(256));

function fillTables(): void {
  const [first = new Uint32Array(256)] = TABLES;
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f6_3b78 : 0);
    first[byte] = crc;
  }
  for (let byte = 0; byte < 256; byte++) {
    let crc = first[byte] ?? 0;
    for (const table of TABLES.slice(1)) table[byte] = crc = (crc >>> 8) ^ (first[crc & 0xff] ?? 0);
  }
}
fillTables();

/** The checksum of `bytes`; `before`: of what comes before them. */
export function crc32c(bytes: Uint8Array, before = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES as [Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array];
  const of = (table: Uint32Array, byte: number): number => table[byte & 0xff] as number;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), whole = bytes.length - (bytes.length % 8);
  let crc = ~before;
  for (let at = 0; at < whole; at += 8) {
    const low = crc ^ view.getUint32(at, true), high = view.getUint32(at + 4, true);
    crc = of(t7, low) ^ of(t6, low >>> 8) ^ of(t5, low >>> 16) ^ of(t4, low >>> 24) ^ of(t3, high) ^ of(t2, high >>> 8) ^ of(t1, high >>> 16) ^ of(t0, high >>> 24);
  }
  for (let at = whole; at < bytes.length; at++) crc = (crc >>> 8) ^ of(t0, crc ^ (bytes[at] as number));
  return ~crc >>> 0;
}
