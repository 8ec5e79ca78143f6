/** Cylinders, heads and sectors, as a footer has them. */
export interface Geometry { readonly cylinders: number; readonly heads: number; readonly sectorsPerTrack: number }

const LARGEST: Geometry = { cylinders: 65535, heads: 16, sectorsPerTrack: 255 };
const TRACKS = 1024;

export const sectorsOf = ({ cylinders, heads, sectorsPerTrack }: Geometry): number => cylinders * heads * sectorsPerTrack;

/** The specification's geometry of a disk of so many sectors ("Appendix: CHS Calculation"); it has that many or somewhat fewer. */
export function geometryOf(sectors: number): Geometry {
  if (sectors >= sectorsOf(LARGEST)) return LARGEST;
  const of = (heads: number, sectorsPerTrack: number): Geometry => ({ cylinders: Math.floor(Math.floor(sectors / sectorsPerTrack) / heads), heads, sectorsPerTrack });
  if (sectors >= 65535 * 16 * 63) return of(16, 255);
  const heads = Math.max(4, Math.ceil(Math.floor(sectors / 17) / TRACKS));
  for (const [most, perTrack] of [[heads, 17], [16, 31]] as const) {
    if (most <= 16 && Math.floor(sectors / perTrack) < most * TRACKS) return of(most, perTrack);
  }
  return of(16, 63);
}

/** The smallest such geometry that has room for `sectors`, if any has: QEMU rounds new disks up to it. */
export function geometryFor(sectors: number): Geometry {
  const wanted = Math.min(sectors, sectorsOf(LARGEST));
  for (let more = wanted; ; more++) {
    const geometry = geometryOf(more);
    if (sectorsOf(geometry) >= wanted) return geometry;
  }
}
