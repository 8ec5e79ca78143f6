import { CP437 } from "./cp437.ts";

export const FLAG_BLINKING = 1;
export const FLAG_FONT_PAGE_B = 2;

/** What a cell holds: character, flags, and two colours as the little-endian RGBA of canvases. */
const CELL = 4;

/** In plane 2 of VGA memory every glyph has 32 rows, a byte each, whatever the character height is. */
const GLYPH_BYTES = 32;
const GLYPHS = 256;
/** These continue their eighth dot in the ninth, so that lines join. */
const LINE_DRAWING = { first: 0xc0, last: 0xdf };

interface Font {
  height: number;
  width: number;
  copyEighth: boolean;
  plane: Uint8Array | undefined;
  pageA: number;
  pageB: number;
}

/** The VGA's text mode: cells, font and cursor, and how they look dot by dot. Knows no canvas. */
export class TextScreen {
  columns = 0;
  rows = 0;
  #cells = new Int32Array(0);
  #dirty = new Uint8Array(0);
  #blinkingRows = new Uint8Array(0);
  #cursor = { row: 0, column: 0, first: 14, last: 15, visible: true };
  readonly font: Font = { height: 16, width: 9, copyEighth: false, plane: undefined, pageA: 0, pageB: 0 };

  get width(): number {
    return this.columns * this.font.width;
  }

  get height(): number {
    return this.rows * this.font.height;
  }

  /** Whether the size is new. */
  resize(columns: number, rows: number): boolean {
    if (columns === this.columns && rows === this.rows) return false;
    this.columns = columns;
    this.rows = rows;
    this.#cells = new Int32Array(columns * rows * CELL);
    this.#dirty = new Uint8Array(rows).fill(1);
    this.#blinkingRows = new Uint8Array(rows);
    return true;
  }

  put(row: number, column: number, character: number, flags: number, background: number, foreground: number): void {
    if (row >= this.rows || column >= this.columns) return;
    const at = (row * this.columns + column) * CELL;
    this.#cells[at] = character;
    this.#cells[at + 1] = flags;
    this.#cells[at + 2] = canvasColour(background);
    this.#cells[at + 3] = canvasColour(foreground);
    this.#dirty[row] = 1;
    if (flags & FLAG_BLINKING) this.#blinkingRows[row] = 1;
  }

  moveCursor(row: number, column: number): void {
    this.#touch(this.#cursor.row);
    this.#cursor.row = row;
    this.#cursor.column = column;
    this.#touch(row);
  }

  shapeCursor(first: number, last: number, visible: boolean): void {
    Object.assign(this.#cursor, { first, last, visible });
    this.#touch(this.#cursor.row);
  }

  invalidate(): void {
    this.#dirty.fill(1);
  }

  /** The cursor changes at every phase of blinking, characters at every second one. */
  blink(characters: boolean): void {
    this.#touch(this.#cursor.row);
    if (characters) this.#blinkingRows.forEach((blinks, row) => blinks && this.#touch(row));
  }

  /** The rows that changed since this was last asked. */
  takeDirtyRows(): number[] {
    const rows: number[] = [];
    this.#dirty.forEach((dirty, row) => dirty && rows.push(row));
    this.#dirty.fill(0);
    return rows;
  }

  text(row: number): string {
    let text = "";
    for (let column = 0; column < this.columns; column++) text += CP437[(this.#cells[(row * this.columns + column) * CELL] ?? 0) & 0xff] ?? " ";
    return text;
  }

  /** Draws a row of characters into `dots`, which is as wide as the screen and as high as a character. */
  draw(row: number, dots: Uint32Array, phase: { cursor: boolean; characters: boolean }): void {
    for (let column = 0; column < this.columns; column++) this.#drawCell(row, column, dots, phase.characters);
    const { visible, column, first, last } = this.#cursor;
    if (!visible || !phase.cursor || row !== this.#cursor.row || column >= this.columns) return;
    const colour = (this.#cells[(row * this.columns + column) * CELL + 3] ?? 0) >>> 0;
    for (let y = first; y <= Math.min(last, this.font.height - 1); y++) {
      const start = y * this.width + column * this.font.width;
      dots.fill(colour, start, start + this.font.width);
    }
  }

  #drawCell(row: number, column: number, dots: Uint32Array, blinkVisible: boolean): void {
    const { height, width, plane, pageA, pageB, copyEighth } = this.font;
    const cell = (row * this.columns + column) * CELL;
    const character = this.#cells[cell] ?? 0;
    const flags = this.#cells[cell + 1] ?? 0;
    const background = (this.#cells[cell + 2] ?? 0) >>> 0;
    const foreground = (this.#cells[cell + 3] ?? 0) >>> 0;
    const glyph = ((flags & FLAG_FONT_PAGE_B ? pageB : pageA) * GLYPHS + character) * GLYPH_BYTES;
    const hidden = (flags & FLAG_BLINKING) !== 0 && !blinkVisible;
    const ninth = copyEighth && character >= LINE_DRAWING.first && character <= LINE_DRAWING.last;
    for (let y = 0; y < height; y++) {
      const bits = hidden ? 0 : (plane?.[glyph + y] ?? 0);
      const start = y * this.width + column * width;
      for (let x = 0; x < width; x++) dots[start + x] = dot(bits, width, x, ninth) ? foreground : background;
    }
  }

  #touch(row: number): void {
    if (row < this.rows) this.#dirty[row] = 1;
  }
}

/** Characters are 8 dots wide, 9 with a gap, or 16: each dot doubled. */
function dot(bits: number, width: number, x: number, ninth: boolean): number {
  if (width === 16) return (bits >> (7 - (x >> 1))) & 1;
  return x < 8 ? (bits >> (7 - x)) & 1 : Number(ninth) & bits;
}

/** 0xRRGGBB as the 32-bit word of opaque RGBA bytes. */
function canvasColour(rgb: number): number {
  return 0xff000000 | ((rgb & 0xff) << 16) | (rgb & 0xff00) | ((rgb >> 16) & 0xff);
}
