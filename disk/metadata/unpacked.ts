import type { Storage } from "../storage.ts";

/**
 * The last unpacked clusters, bounded in bytes; the oldest goes first. The newest stays whatever its size (a chunk of a dmg
 * image may have 64 MiB): or who reads it in pieces would unpack it for each. Keyed by where the packed bytes stand.
 */
export class UnpackedClusters {
  readonly #of = new Map<Storage, Map<number, Uint8Array>>();
  #bytes = 0;

  constructor(readonly limit: number) {}

  get(storage: Storage, offset: number): Uint8Array | undefined {
    return this.#of.get(storage)?.get(offset);
  }

  /** `cluster` becomes the cache's own. */
  put(storage: Storage, offset: number, cluster: Uint8Array): void {
    const clusters = this.#of.get(storage) ?? new Map<number, Uint8Array>();
    this.#of.set(storage, clusters);
    this.#remove(clusters, offset);
    clusters.set(offset, cluster);
    this.#bytes += cluster.length;
    for (const victims of [clusters, ...this.#of.values()]) {
      for (const oldest of victims.keys()) {
        if (this.#bytes <= this.limit) return;
        if (victims !== clusters || oldest !== offset) this.#remove(victims, oldest);
      }
    }
  }

  /** Other bytes stand there now. */
  drop(storage: Storage, offset: number): void {
    const clusters = this.#of.get(storage);
    if (clusters !== undefined) this.#remove(clusters, offset);
  }

  clear(): void {
    this.#of.clear();
    this.#bytes = 0;
  }

  #remove(clusters: Map<number, Uint8Array>, offset: number): void {
    this.#bytes -= clusters.get(offset)?.length ?? 0;
    clusters.delete(offset);
  }
}
