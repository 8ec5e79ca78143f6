/** RGBA dots, row by row. */
export interface Pixels { readonly width: number; readonly height: number; readonly data: Uint8ClampedArray<ArrayBuffer> }

/** A rectangle of a picture, and where it goes. */
export interface Placement {
  readonly x: number; readonly y: number;
  readonly fromX: number; readonly fromY: number;
  readonly width: number; readonly height: number;
}

/** Where a screen is drawn. */
export interface Surface {
  resize(width: number, height: number): void;
  clear(): void;
  put(picture: Pixels, place: Placement): void;
  pixels(): Pixels;
}

export type ScreenCanvas = OffscreenCanvas | HTMLCanvasElement;

export class CanvasSurface implements Surface {
  readonly #context: OffscreenCanvasRenderingContext2D | CanvasRenderingContext2D;

  constructor(readonly canvas: ScreenCanvas) {
    // The overload for the union of both canvases does not exist; both take these arguments.
    const context = (canvas as OffscreenCanvas).getContext("2d", { alpha: false });
    if (!context) throw new TypeError("the canvas has no 2D context: it is in use for something else");
    this.#context = context;
  }

  resize(width: number, height: number): void {
    this.canvas.width = width;
    this.canvas.height = height;
  }

  clear(): void {
    this.#context.fillStyle = "#000";
    this.#context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  put(picture: Pixels, place: Placement): void {
    const image = picture instanceof ImageData ? picture : new ImageData(picture.data, picture.width, picture.height);
    this.#context.putImageData(image, place.x - place.fromX, place.y - place.fromY, place.fromX, place.fromY, place.width, place.height);
  }

  pixels(): Pixels {
    const { width, height, data } = this.#context.getImageData(0, 0, Math.max(1, this.canvas.width), Math.max(1, this.canvas.height));
    return { width, height, data: new Uint8ClampedArray(data) };
  }
}

/** Without any canvas: for screenshots in Node. */
export class MemorySurface implements Surface {
  #width = 0;
  #height = 0;
  #dots = new Uint32Array(0);

  resize(width: number, height: number): void {
    this.#width = width;
    this.#height = height;
    this.#dots = new Uint32Array(width * height);
    this.clear();
  }

  clear(): void {
    this.#dots.fill(0xff000000);
  }

  put({ data, width, height }: Pixels, place: Placement): void {
    const from = new Uint32Array(data.buffer, data.byteOffset, width * height);
    const left = Math.max(0, -place.x, -place.fromX);
    const right = Math.min(place.width, this.#width - place.x, width - place.fromX);
    if (left >= right) return;
    for (let row = 0; row < place.height; row++) {
      const y = place.y + row;
      const fromY = place.fromY + row;
      if (y < 0 || y >= this.#height || fromY < 0 || fromY >= height) continue;
      const start = fromY * width + place.fromX;
      this.#dots.set(from.subarray(start + left, start + right), y * this.#width + place.x + left);
    }
  }

  pixels(): Pixels {
    return { width: this.#width, height: this.#height, data: new Uint8ClampedArray(this.#dots.slice().buffer) };
  }
}

/**
 * v86 makes the picture of a graphics mode only where there is `ImageData`. Node has none: this is enough of one.
 * Called only for a machine whose configuration asks for graphics.
 */
export function provideImageData(): void {
  if (typeof ImageData !== "undefined") return;
  class MemoryImageData implements Pixels {
    constructor(readonly data: Uint8ClampedArray<ArrayBuffer>, readonly width: number, readonly height: number) {}
  }
  Object.defineProperty(globalThis, "ImageData", { value: MemoryImageData, configurable: true, writable: true });
}
