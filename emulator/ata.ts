/** ATA/ATAPI-8 (ATA8-ACS), what a disk with a write cache and TRIM needs; section numbers are of that standard. */

/** 7: commands. */
export const ATA = {
  DATA_SET_MANAGEMENT: 0x06,
  DEVICE_RESET: 0x08,
  READ_SECTORS: 0x20,
  READ_SECTORS_EXT: 0x24,
  READ_DMA_EXT: 0x25,
  READ_MULTIPLE_EXT: 0x29,
  WRITE_SECTORS: 0x30,
  WRITE_SECTORS_EXT: 0x34,
  WRITE_DMA_EXT: 0x35,
  WRITE_MULTIPLE_EXT: 0x39,
  READ_VERIFY: 0x40,
  READ_VERIFY_EXT: 0x42,
  READ_MULTIPLE: 0xc4,
  WRITE_MULTIPLE: 0xc5,
  READ_DMA: 0xc8,
  WRITE_DMA: 0xca,
  STANDBY_IMMEDIATE: 0xe0,
  FLUSH_CACHE: 0xe7,
  FLUSH_CACHE_EXT: 0xea,
  SET_FEATURES: 0xef,
} as const;

/** Commands with 48-bit addresses: the registers hold two bytes each. */
export const LBA48 = new Set<number>([
  ATA.READ_SECTORS_EXT, ATA.READ_DMA_EXT, ATA.READ_MULTIPLE_EXT, ATA.WRITE_SECTORS_EXT, ATA.WRITE_DMA_EXT, ATA.WRITE_MULTIPLE_EXT,
  ATA.READ_VERIFY_EXT,
]);

/** 7.50: SET FEATURES subcommands. */
export const ENABLE_WRITE_CACHE = 0x02;
export const DISABLE_WRITE_CACHE = 0x82;

/** 6.2: status bits. DSC is always set by v86's drives. */
export const STATUS = { BUSY: 0x80, READY: 0x40, SEEK_COMPLETE: 0x10, DATA_REQUEST: 0x08, ERROR: 0x01 } as const;
export const IDLE = STATUS.READY | STATUS.SEEK_COMPLETE;

/** 6.3: error bits: uncorrectable data, sector not found, command aborted. */
export const ERROR = { UNCORRECTABLE: 0x40, ID_NOT_FOUND: 0x10, ABORTED: 0x04 } as const;

/** Bus Master IDE 1.0: status bits. */
export const BUS_MASTER = { ACTIVE: 1, ERROR: 2 } as const;

/** 7.10.3.2: a block of a TRIM is 64 ranges of 48 bits of address and 16 of count. */
export const TRIM_BLOCK = 512;
export const TRIM_MAX_BLOCKS = 8;
const TRIM_ENTRY = 8;

/** The ranges of a TRIM in sectors, neighbours joined: Linux cuts one long range into many of 65535. */
export function trimRanges(payload: Uint8Array): { sector: number; count: number }[] {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const ranges: { sector: number; count: number }[] = [];
  for (let at = 0; at + TRIM_ENTRY <= payload.length; at += TRIM_ENTRY) {
    const sector = view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32;
    const count = view.getUint16(at + 6, true);
    if (count === 0) continue;
    const last = ranges.at(-1);
    if (last && last.sector + last.count === sector) last.count += count;
    else ranges.push({ sector, count });
  }
  return ranges;
}

const LBA28_SECTORS = 0x0fffffff;

/** 7.16: what IDENTIFY DEVICE says beyond v86's answer: a write cache, TRIM, a medium that does not turn. */
export function describeDisk(words: Uint16Array, disk: { sectors: number; writeCache: boolean; trim: boolean }): void {
  const set = (word: number, value: number, bits = 32): void => {
    for (let shift = 0; shift < bits; shift += 16) words[word + shift / 16] = Math.floor(value / 2 ** shift) & 0xffff;
  };
  set(60, Math.min(disk.sectors, LBA28_SECTORS));
  set(100, disk.sectors, 64);
  // Supports ATA-4 to ATA8-ACS.
  set(80, 0x01f0, 16);
  const writeCache = 1 << 5;
  set(82, (words[82] ?? 0) | writeCache, 16);
  set(85, disk.writeCache ? (words[85] ?? 0) | writeCache : (words[85] ?? 0) & ~writeCache, 16);
  set(217, 1, 16);
  if (!disk.trim) return;
  set(105, TRIM_MAX_BLOCKS, 16);
  set(169, 1, 16);
}
