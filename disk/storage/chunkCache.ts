/** The chunks of one storage that were used last, bounded in bytes. What was used longest ago goes first. */
export class ChunkCache {
  /** In the order of use: Maps keep the order of insertion. */
  readonly #chunks = new Map<number, Uint8Array>();
  #bytes = 0;
  #newestIndex = -1;
  #newest: Uint8Array | undefined;

  /** `limit` in bytes; one chunk is kept however large it is. */
  constructor(readonly limit: number) {}

  /** How many bytes it holds now. */
  get bytes(): number {
    return this.#bytes;
  }

  has(index: number): boolean {
    return this.#chunks.has(index);
  }

  /** The chunk, which stays the cache's own, and counts as used now. */
  get(index: number): Uint8Array | undefined {
    if (index === this.#newestIndex) return this.#newest;
    const chunk = this.#chunks.get(index);
    if (chunk) this.#use(index, chunk);
    return chunk;
  }

  /** `chunk` becomes the cache's own. It should own its whole buffer, or that buffer is not bounded. */
  put(index: number, chunk: Uint8Array): void {
    this.#bytes += chunk.length - (this.#chunks.get(index)?.length ?? 0);
    this.#use(index, chunk);
    for (const [oldest, { length }] of this.#chunks) {
      if (this.#bytes <= this.limit || oldest === index) break;
      this.#chunks.delete(oldest);
      this.#bytes -= length;
    }
  }

  clear(): void {
    this.#chunks.clear();
    this.#bytes = 0;
    this.#newestIndex = -1;
    this.#newest = undefined;
  }

  #use(index: number, chunk: Uint8Array): void {
    this.#chunks.delete(index);
    this.#chunks.set(index, chunk);
    this.#newestIndex = index;
    this.#newest = chunk;
  }
}
