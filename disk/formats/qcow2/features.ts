import { DiskError } from "../../errors.ts";
import type { Qcow2Header } from "./header.ts";

/** Incompatible features: a reader that does not know one must not open the image. docs/interop/qcow2.rst, "Header". */
export const INCOMPATIBLE = { dirty: 1n << 0n, corrupt: 1n << 1n, externalData: 1n << 2n, compressionType: 1n << 3n, extendedL2: 1n << 4n } as const;
export const COMPATIBLE = { lazyRefcounts: 1n << 0n } as const;
/** Autoclear features: a writer that does not keep one up to date clears its bit before it writes. */
export const AUTOCLEAR = { bitmaps: 1n << 0n, rawExternalData: 1n << 1n } as const;

/** The names that QEMU writes into the feature name table: type (0 incompatible, 1 compatible, 2 autoclear), bit, name. */
export const FEATURE_NAMES: readonly (readonly [type: number, bit: number, name: string])[] = [
  [0, 0, "dirty bit"], [0, 1, "corrupt bit"], [0, 2, "external data file"], [0, 3, "compression type"], [0, 4, "extended L2 entries"],
  [1, 0, "lazy refcounts"],
  [2, 0, "bitmaps"], [2, 1, "raw external data"],
];

/** Refuses, by name, what this build cannot read rightly. */
export function refuseUnsupported(header: Qcow2Header, path: string): void {
  const refuse = (what: string): never => {
    throw new DiskError("unsupported", what, { path, format: "qcow2" });
  };
  const known = Object.values(INCOMPATIBLE).reduce((all, bit) => all | bit, 0n);
  const foreign = header.incompatible & ~known;
  if (foreign !== 0n) refuse(`the image needs features that disk86 does not have: ${bitNames(foreign, header).join(", ")}; convert it with qemu-img first`);
  if (header.crypt > 2) refuse(`the image is encrypted by method ${header.crypt}; AES (1) and LUKS (2) are known`);
}

/** The set bits, each by its name in the image's own feature table, or ours, or its number. */
export function bitNames(bits: bigint, header: Qcow2Header): string[] {
  const names: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if ((bits & (1n << BigInt(bit))) === 0n) continue;
    const own = FEATURE_NAMES.find(([type, number]) => type === 0 && number === bit)?.[2];
    names.push(own ?? header.featureNames.get(`0:${bit}`) ?? `unknown incompatible feature bit ${bit}`);
  }
  return names;
}
