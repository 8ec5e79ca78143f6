/** Set-1 scan codes of the keys by `KeyboardEvent.code`; those above 0xff are sent with a 0xe0 before them. */
const CODES: Readonly<Record<string, number>> = {
  Escape: 0x01, Minus: 0x0c, Equal: 0x0d, Backspace: 0x0e, Tab: 0x0f, BracketLeft: 0x1a, BracketRight: 0x1b, Enter: 0x1c,
  ControlLeft: 0x1d, Semicolon: 0x27, Quote: 0x28, Backquote: 0x29, ShiftLeft: 0x2a, Backslash: 0x2b, Comma: 0x33, Period: 0x34,
  Slash: 0x35, ShiftRight: 0x36, NumpadMultiply: 0x37, AltLeft: 0x38, Space: 0x39, CapsLock: 0x3a, NumLock: 0x45, ScrollLock: 0x46,
  Numpad7: 0x47, Numpad8: 0x48, Numpad9: 0x49, NumpadSubtract: 0x4a, Numpad4: 0x4b, Numpad5: 0x4c, Numpad6: 0x4d, NumpadAdd: 0x4e,
  Numpad1: 0x4f, Numpad2: 0x50, Numpad3: 0x51, Numpad0: 0x52, NumpadDecimal: 0x53, IntlBackslash: 0x56, F11: 0x57, F12: 0x58,
  NumpadEnter: 0xe01c, ControlRight: 0xe01d, NumpadDivide: 0xe035, AltRight: 0xe038, Home: 0xe047, ArrowUp: 0xe048, PageUp: 0xe049,
  ArrowLeft: 0xe04b, ArrowRight: 0xe04d, End: 0xe04f, ArrowDown: 0xe050, PageDown: 0xe051, Insert: 0xe052, Delete: 0xe053,
  MetaLeft: 0xe05b, MetaRight: 0xe05c, ContextMenu: 0xe05d,
  ...row("1234567890", 0x02, "Digit"), ...row("QWERTYUIOP", 0x10, "Key"), ...row("ASDFGHJKL", 0x1e, "Key"), ...row("ZXCVBNM", 0x2c, "Key"),
  ...Object.fromEntries(Array.from({ length: 10 }, (_, index) => [`F${index + 1}`, 0x3b + index])),
};

const RELEASE = 0x80;

/** What the keyboard sends when the key `code` goes down or up; `undefined`: no key of a PC. */
export function scancodes(code: string, down: boolean): number[] | undefined {
  const key = CODES[code];
  if (key === undefined) return undefined;
  const last = (key & 0xff) | (down ? 0 : RELEASE);
  return key > 0xff ? [0xe0, last] : [last];
}

/** Pressed together and let go again. */
export const CTRL_ALT_DEL: readonly number[] = [...chord(["ControlLeft", "AltLeft", "Delete"])];

function* chord(keys: readonly string[]): Iterable<number> {
  for (const key of keys) yield* scancodes(key, true) ?? [];
  for (const key of keys.toReversed()) yield* scancodes(key, false) ?? [];
}

function row(keys: string, first: number, prefix: string): Record<string, number> {
  return Object.fromEntries(keys.split("").map((key, index) => [prefix + key, first + index]));
}
