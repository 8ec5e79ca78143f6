import type { InfoObject, InfoValue } from "../formats/info.ts";
import { isComposite, qemuOrder } from "./json.ts";
import { integer } from "./sizes.ts";

/** QEMU's indented listing of format specific information. */
export function listing(value: InfoValue, depth: number): string {
  if (typeof value === "number") return integer(value);
  if (!isComposite(value)) return String(value);
  const entries: [string, InfoValue][] = Array.isArray(value)
    ? (value as readonly InfoValue[]).map((item, index) => [`[${index}]`, item])
    : qemuOrder(value as InfoObject).map(([key, item]) => [key.replaceAll("-", " "), item]);
  return entries.map(([key, item]) => `${"    ".repeat(depth)}${key}:${isComposite(item) ? `\n${listing(item, depth + 1)}` : ` ${listing(item, depth)}\n`}`).join("");
}
