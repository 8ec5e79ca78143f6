import { DiskError } from "../errors.ts";

/** Splits `a=b,c=d` as QEMU does: `,,` is a comma within a value; a name alone is switched on, with `no` before it off. */
export function splitOptions(text: string): [name: string, value: string][] {
  if (/^,(?!,)|[^,](,,)*,$/.test(text) || text === ",") throw new DiskError("invalid-argument", `Invalid option list: ${text}`);
  return text.replaceAll(",,", "\0").split(",").map((part) => {
    const one = part.replaceAll("\0", ","), equals = one.indexOf("=");
    if (equals >= 0) return [one.slice(0, equals), one.slice(equals + 1)];
    return one.startsWith("no") ? [one.slice(2), "off"] : [one, "on"];
  });
}
