/** UTF-16 as far as its first NUL. */
export function decodeUtf16(bytes: Uint8Array, little: boolean): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  let text = "";
  for (let at = 0; at + 1 < bytes.length; at += 2) {
    const unit = view.getUint16(at, little);
    if (unit === 0) break;
    text += String.fromCharCode(unit);
  }
  return text;
}

/** `.\dir\base.vhd`, as a Windows program wrote it: as a path relative to the image. */
export function relativePath(path: string): string | undefined {
  return /^[A-Za-z]:|^\\\\/.test(path) ? lastPart(path) : path.replaceAll("\\", "/").replace(/^(\.\/)+/, "") || undefined;
}

/** Of a path on some other machine: it can only be found beside the image. */
export function lastPart(path: string): string | undefined {
  return path.split(/[\\/]/).at(-1) || undefined;
}
