/** Text as key strokes of a US keyboard: scan codes of set 1. */
const ROWS: readonly (readonly [first: number, plain: string, shifted: string])[] = [
  [0x02, "1234567890-=", "!@#$%^&*()_+"],
  [0x10, "qwertyuiop[]", "QWERTYUIOP{}"],
  [0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"],
  [0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"],
  [0x39, " ", ""],
  [0x0e, "\b\t", ""],
  [0x1c, "\n", ""],
  [0x01, "\x1b", ""],
];
const LEFT_SHIFT = 0x2a;
const RELEASE = 0x80;

const plain = new Map<string, number>();
const shifted = new Map<string, number>();
for (const [first, lower, upper] of ROWS) {
  for (let index = 0; index < lower.length; index++) plain.set(lower.charAt(index), first + index);
  for (let index = 0; index < upper.length; index++) shifted.set(upper.charAt(index), first + index);
}

/** The codes of one character, pressed and released; none if the keyboard has no such key. */
export function keyStroke(character: string): number[] {
  const key = plain.get(character);
  if (key !== undefined) return [key, key | RELEASE];
  const upper = shifted.get(character);
  return upper === undefined ? [] : [LEFT_SHIFT, upper, upper | RELEASE, LEFT_SHIFT | RELEASE];
}
