import { integer } from "../bytes/sizes.ts";
import type { InfoObject, InfoValue } from "../formats/info.ts";

const BUCKETS = 512;

/**
 * Where QEMU's dictionary keeps a key (qobject/qdict.c, `tdb_hash`). It lists its keys by bucket, so this is the
 * order of all that qemu-img prints from one: with it our output is the same to the byte.
 */
function bucket(key: string): number {
  let value = Math.imul(0x238f13af, key.length);
  for (let i = 0; i < key.length; i++) value = (value + (key.charCodeAt(i) << ((i * 5) % 24))) | 0;
  return ((Math.imul(1103515243, value) + 12345) >>> 0) % BUCKETS;
}

/** The entries of `object` as QEMU orders them. */
export function qemuOrder(object: InfoObject): [string, InfoValue][] {
  return Object.entries(object).reverse().sort(([a], [b]) => bucket(a) - bucket(b));
}

/** Whether it prints on lines of its own. */
export function isComposite(value: InfoValue): value is InfoObject | readonly InfoValue[] {
  return typeof value === "object";
}

/** Pretty JSON, to the byte as QEMU prints it. */
export function toJson(value: InfoValue, depth = 0): string {
  if (typeof value === "string") return quoted(value);
  if (typeof value === "number") return integer(value);
  if (!isComposite(value)) return String(value);
  const indent = "    ".repeat(depth + 1), end = "    ".repeat(depth), list = Array.isArray(value);
  const items = list ? (value as readonly InfoValue[]).map((item) => toJson(item, depth + 1))
    : qemuOrder(value as InfoObject).map(([key, item]) => `${quoted(key)}: ${toJson(item, depth + 1)}`);
  const body = items.map((item) => `\n${indent}${item}`).join(",");
  return list ? `[${body}\n${end}]` : `{${body}\n${end}}`;
}

/** The same on one line. */
export function toJsonLine(value: InfoValue): string {
  if (!isComposite(value)) return toJson(value);
  if (Array.isArray(value)) return `[${(value as readonly InfoValue[]).map(toJsonLine).join(", ")}]`;
  return `{${qemuOrder(value as InfoObject).map(([key, item]) => `${quoted(key)}: ${toJsonLine(item)}`).join(", ")}}`;
}

const ESCAPES: Readonly<Record<string, string>> = { '"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function quoted(text: string): string {
  // oxlint-disable-next-line no-control-regex -- they are what has to be escaped
  return `"${text.replaceAll(/["\\\u0000-\u001f\u007f-\uffff]/g, (letter) => ESCAPES[letter] ?? `\\u${letter.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0")}`)}"`;
}
