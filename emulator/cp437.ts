/** Code page 437, the VGA's own: what its glyphs look like as text. */
const LOW = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼";
const HIGH =
  "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ";

export const CP437: readonly string[] = Array.from({ length: 256 }, (_, code) => {
  if (code < 32) return LOW[code] ?? " ";
  if (code < 127) return String.fromCodePoint(code);
  return code === 127 ? "⌂" : (HIGH[code - 128] ?? " ");
});
