/** A random UUID (RFC 4122, version 4). `little`: its first three fields stand little-endian, as Microsoft's GUIDs do. */
export function randomUuid(little: boolean): Uint8Array {
  const uuid = crypto.getRandomValues(new Uint8Array(16)), version = little ? 7 : 6;
  uuid[version] = ((uuid[version] ?? 0) & 0x0f) | 0x40;
  uuid[8] = ((uuid[8] ?? 0) & 0x3f) | 0x80;
  return uuid;
}
