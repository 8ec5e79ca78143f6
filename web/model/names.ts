import type { Base } from "./machine.ts";

/** The file name at the end of a URL, for people and for backing references. */
export function fileOfUrl(url: string): string {
  const last = new URL(url, "http://localhost/").pathname.split("/").findLast((part) => part !== "") ?? "";
  try {
    return decodeURIComponent(last) || "disk.img";
  } catch {
    return last;
  }
}

/**
 * How an overlay names its base: a plain file name, so that a downloaded overlay finds the downloaded base beside it.
 * QEMU takes what stands before a colon for a protocol, unless a slash comes first.
 */
export function backingName(base: Base): string {
  const name = (base.kind === "files" ? (base.files[0]?.name ?? "disk.img") : fileOfUrl(base.url)).replaceAll(/[\p{Cc}/\\]/gu, "_");
  return name.includes(":") ? `./${name}` : name;
}

/** One machine for each base: what finds it again after a reload, and names its folder and its lock. */
export function machineId(base: Base): string {
  switch (base.kind) {
    case "guest": return `guest-${base.name}`;
    case "url": return `url-${hash(base.url)}`;
    case "files": return `file-${hash(`${base.files[0]?.size}:${base.files[0]?.name}`)}`;
  }
}

/** `tiny.qcow2` -> `tiny-changes.qcow2`. */
export function overlayFileName(baseFile: string): string {
  return `${baseFile.replace(/^\.\//, "").replaceAll(":", "_").replace(/\.[a-z0-9]{1,6}$/i, "")}-changes.qcow2`;
}

/** FNV-1a over UTF-16, twice with different starts: 64 bits that only have to tell a user's few images apart. */
function hash(text: string): string {
  return [0x811c9dc5, 0x01000193].map((start) => {
    let value = start;
    for (let index = 0; index < text.length; index++) value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
    return (value >>> 0).toString(16).padStart(8, "0");
  }).join("");
}
