const SUFFIXES = "bkmgtpe";

/**
 * A size as QEMU reads it: decimal, a fraction if there is a suffix, hexadecimal; B, k, M, G, T, P or E.
 * `undefined`: it is none. From 2^53 on the last digits may be lost.
 */
export function parseSize(text: string): number | undefined {
  const hex = /^\s*\+?0x([0-9a-f]+)([kmgtp]?)$/i.exec(text);
  if (hex) return Number.parseInt(hex[1] ?? "", 16) * unit(hex[2] ?? "");
  const decimal = /^\s*\+?(\d+)(?:\.(\d*))?([bkmgtpe]?)$/i.exec(text);
  if (!decimal) return undefined;
  const [, whole = "", fraction = "", suffix = ""] = decimal, scale = unit(suffix);
  if (Number(fraction) > 0 && scale === 1) return undefined;
  return Number(whole) * scale + Math.floor(Number(`0.${fraction || "0"}`) * scale);
}

function unit(suffix: string): number {
  return 1024 ** Math.max(0, SUFFIXES.indexOf(suffix.toLowerCase() || "b"));
}

/** An integer in full: `String` turns to exponents and loses digits above 2^53. */
export function integer(value: number): string {
  return Number.isSafeInteger(value) ? String(value) : BigInt(Math.trunc(value)).toString();
}
