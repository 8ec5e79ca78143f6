import { DiskError } from "../disk/errors.ts";
import { CanvasSurface, MemorySurface, type Pixels, type ScreenCanvas, type Surface } from "./screen-surface.ts";
import { FLAG_BLINKING, FLAG_FONT_PAGE_B, TextScreen } from "./screen-text.ts";
import type { ScreenAdapter, ScreenLayer } from "./v86-internals.ts";

/** What the guest's display shows: columns and rows, or dots. */
export interface ScreenMode {
  readonly graphical: boolean;
  readonly columns: number;
  readonly rows: number;
  /** In dots, text modes too. */
  readonly width: number;
  readonly height: number;
}

/** How long a phase of the cursor's blinking is, in ms: eight of the VGA's frames. Characters blink half as fast. */
const BLINK_PHASE = 133;
const FRAME = 16;

const nextFrame: (paint: () => void) => void = typeof requestAnimationFrame === "function"
  ? (paint) => { requestAnimationFrame(paint); }
  : (paint) => { setTimeout(paint, FRAME); };

/**
 * The guest's display as v86 reports it. With a canvas it is painted at every frame, exactly as a VGA would; without,
 * only text is kept, and a picture is made when asked for.
 */
export class Screen implements ScreenAdapter {
  readonly FLAG_BLINKING = FLAG_BLINKING;
  readonly FLAG_FONT_PAGE_B = FLAG_FONT_PAGE_B;
  readonly #text = new TextScreen();
  readonly #canvas: CanvasSurface | undefined;
  #surface: Surface | undefined;
  #graphical = false;
  #width = 0;
  #height = 0;
  #phase = 0;
  #running = false;
  #framePending = false;
  #destroyed = false;
  /** Makes v86 hand over a graphics mode's picture by `update_buffer`. */
  fill: () => void = () => {};

  constructor(canvas: ScreenCanvas | undefined, readonly onMode: (mode: ScreenMode) => void = () => {}) {
    this.#canvas = canvas && new CanvasSurface(canvas);
    this.#surface = this.#canvas;
    this.set_size_text(80, 25);
  }

  get mode(): ScreenMode {
    const { columns, rows } = this.#text;
    return this.#graphical
      ? { graphical: true, columns: 0, rows: 0, width: this.#width, height: this.#height }
      : { graphical: false, columns, rows, width: this.#width, height: this.#height };
  }

  /** The rows of a text mode without trailing spaces; in a graphics mode what the last text mode showed. */
  text(): string[] {
    return this.get_text_screen().map((row) => row.trimEnd());
  }

  /** The picture of this moment. */
  screenshot(): Pixels {
    if (this.#graphical && typeof ImageData === "undefined") {
      throw new DiskError("unsupported", "no picture of a graphics mode in Node: make the machine with screen: { graphics: true }");
    }
    if (!this.#surface) {
      this.#surface = new MemorySurface();
      this.#surface.resize(this.#width, this.#height);
      this.#text.invalidate();
    }
    this.#paint();
    return this.#surface.pixels();
  }

  put_char(row: number, column: number, character: number, flags: number, background: number, foreground: number): void {
    this.#text.put(row, column, character, flags, background, foreground);
  }

  set_mode(graphical: boolean): void {
    this.#graphical = graphical;
    if (!graphical) this.#sizeText();
  }

  set_size_text(columns: number, rows: number): void {
    if (this.#text.resize(columns, rows)) this.#sizeText();
  }

  set_size_graphical(width: number, height: number): void {
    this.#resize(width, height);
  }

  set_font_bitmap(height: number, nineDots: boolean, double: boolean, copyEighth: boolean, plane: Uint8Array): void {
    const width = double ? 16 : nineDots ? 9 : 8;
    const { font } = this.#text;
    const resized = width !== font.width || height !== font.height;
    Object.assign(font, { height, width, copyEighth, plane });
    if (resized) this.#sizeText();
    this.#text.invalidate();
  }

  set_font_page(a: number, b: number): void {
    Object.assign(this.#text.font, { pageA: a, pageB: b });
    this.#text.invalidate();
  }

  set_scale(): void {}

  clear_text_state(): void {
    this.#text.resize(0, 0);
  }

  clear_screen(): void {
    this.#surface?.clear();
  }

  update_cursor(row: number, column: number): void {
    this.#text.moveCursor(row, column);
  }

  update_cursor_scanline(start: number, end: number, visible: boolean): void {
    this.#text.shapeCursor(start, end, visible);
  }

  update_buffer(layers: readonly ScreenLayer[]): void {
    for (const layer of layers) {
      this.#surface?.put(layer.image_data, {
        x: layer.screen_x, y: layer.screen_y, fromX: layer.buffer_x, fromY: layer.buffer_y,
        width: layer.buffer_width, height: layer.buffer_height,
      });
    }
  }

  get_text_row(row: number): string {
    return this.#text.text(row);
  }

  get_text_screen(): string[] {
    return Array.from({ length: this.#text.rows }, (_, row) => this.get_text_row(row));
  }

  /** v86 stopped: what it drew last still shows. */
  pause(): void {
    this.#running = false;
  }

  continue(): void {
    this.#running = true;
    this.#schedule();
  }

  destroy(): void {
    this.#destroyed = true;
  }

  #sizeText(): void {
    if (this.#graphical || this.#text.columns === 0) return;
    this.#resize(this.#text.width, this.#text.height);
    this.#text.invalidate();
  }

  #resize(width: number, height: number): void {
    const changed = width !== this.#width || height !== this.#height;
    this.#width = width;
    this.#height = height;
    if (changed || this.#graphical) this.#surface?.resize(width, height);
    this.onMode(this.mode);
  }

  #schedule(): void {
    if (!this.#canvas || this.#framePending || this.#destroyed) return;
    this.#framePending = true;
    nextFrame(() => {
      this.#framePending = false;
      if (this.#destroyed) return;
      this.#paint();
      if (this.#running) this.#schedule();
    });
  }

  #paint(): void {
    if (this.#graphical) return this.fill();
    const phase = Math.floor(performance.now() / BLINK_PHASE);
    if (phase !== this.#phase) this.#text.blink(phase >> 1 !== this.#phase >> 1);
    this.#phase = phase;
    const { width, font } = this.#text;
    const rows = this.#text.takeDirtyRows();
    if (rows.length === 0 || width === 0) return;
    const data = new Uint8ClampedArray(width * font.height * 4);
    const dots = new Uint32Array(data.buffer);
    for (const row of rows) {
      this.#text.draw(row, dots, { cursor: (phase & 1) === 0, characters: (phase & 2) === 0 });
      this.#surface?.put({ width, height: font.height, data }, { x: 0, y: row * font.height, fromX: 0, fromY: 0, width, height: font.height });
    }
  }
}
