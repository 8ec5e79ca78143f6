import { integer, parseSize } from "../bytes/sizes.ts";
import { CommandError } from "./verb.ts";

export { integer, parseSize };

const MAX = 2 ** 63;

/** `parseSize` of something the user typed; `what` names it in QEMU's complaint. */
export function sizeArgument(text: string, what: string): number {
  const size = parseSize(text);
  if (size === undefined) throw new CommandError(`Invalid ${what} specified. You may use k, M, G, T, P or E suffixes for\nkilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.`);
  if (size >= MAX) throw new CommandError(`Invalid ${what} specified. Must be between 0 and 9223372036854775807.`);
  return size;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** `1.35 MiB`: three digits, as QEMU prints sizes. */
export function formatSize(bytes: number): string {
  let power = 0;
  // From 1000 on the next unit, since four digits would not fit.
  while (bytes / 1024 ** power >= 1000 && power < UNITS.length - 1) power++;
  return `${threeDigits(bytes / 1024 ** power)} ${UNITS[power]}`;
}

/** C's `%.3g` for values from 0 to 1000. */
function threeDigits(value: number): string {
  return String(Number(fixed(value, value >= 100 ? 0 : value >= 10 ? 1 : 2)));
}

/** C's `%.*f`: as `toFixed`, but exact halves go to the even digit. */
export function fixed(value: number, digits: number): string {
  // Of all halves only odd multiples of such a power of two can be exact in binary.
  if (Math.abs(value * 2 ** (digits + 1)) % 2 !== 1) return value.toFixed(digits);
  const scale = 10 ** digits, floor = Math.floor(value * scale);
  return ((floor + (floor % 2)) / scale).toFixed(digits);
}
