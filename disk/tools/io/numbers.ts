import { parseSize } from "../sizes.ts";
import { Failed } from "./command.ts";

const TOO_LARGE = 2 ** 63;
/** QEMU's BDRV_REQUEST_MAX_BYTES: whole sectors below 2 GiB. */
export const MAX_REQUEST = 2 ** 31 - 512;

/** A number of bytes as qemu-io reads it. */
export function bytesArgument(text: string): number {
  const size = parseSize(text);
  if (size === undefined) throw new Failed(`Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- ${text}`);
  if (size >= TOO_LARGE) throw new Failed(`Parsing error: argument too large -- ${text}`);
  return size;
}

/** The value of a byte, decimal, octal or hexadecimal. */
export function patternArgument(text: string): number {
  const value = /^[+-]?0[0-7]+$/.test(text) ? Number.parseInt(text, 8) : /^\s*[+-]?(\d+|0x[\da-f]+)$/i.test(text) ? Number(text) : Number.NaN;
  if (!(value >= 0 && value <= 255)) throw new Failed(`${text} is not a valid pattern byte`);
  return value;
}

const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** `1.500 KiB`, `64 KiB`, `0.039232 bytes`: as qemu-io prints amounts. */
export function amount(bytes: number): string {
  let power = 0;
  while (power < UNITS.length - 1 && bytes >= 1024 ** (power + 1)) power++;
  const text = (bytes / 1024 ** power).toFixed(power === 0 ? 6 : 3), round = text.indexOf(".000");
  return `${round < 0 ? text : text.slice(0, round)} ${UNITS[power]}`;
}

/** How long something took, in seconds; `full` with hours and minutes, as from one second on. */
export function duration(seconds: number, full: boolean): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  const whole = Math.floor(seconds), last = ((whole % 60) + (seconds - whole)).toFixed(2).padStart(5, "0");
  return full || whole > 0 ? `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${last}` : `${last} sec`;
}
