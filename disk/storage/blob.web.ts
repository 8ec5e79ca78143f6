import { DiskError } from "../errors.ts";
import { type ChunkOptions, ChunkedStorage, type ChunkSource } from "./chunked.ts";

/** Reading a piece of a Blob takes 0.3 ms whatever its size, up to about a MiB. */
const CHUNK = 256 << 10;

/** A file that a user picked or dropped, or any other `Blob`; read-only. */
export class BlobStorage extends ChunkedStorage {
  /** `name`: for messages; a `File` has its own. Its caching defaults are those of `ChunkOptions`, with 16 MiB kept. */
  constructor(blob: Blob, name = "name" in blob && typeof blob.name === "string" ? blob.name : "blob", options: ChunkOptions = {}) {
    super(new BlobSource(blob, name), { chunkSize: CHUNK, cacheBytes: 16 << 20, ...options });
  }
}

class BlobSource implements ChunkSource {
  readonly #blob: Blob;
  readonly name: string;
  readonly size: number;

  constructor(blob: Blob, name: string) {
    this.#blob = blob;
    this.name = name;
    this.size = blob.size;
  }

  async fetch(offset: number, length: number): Promise<Uint8Array> {
    try {
      return new Uint8Array(await this.#blob.slice(offset, offset + length).arrayBuffer());
    } catch (error) {
      const gone = error instanceof Error && (error.name === "NotReadableError" || error.name === "NotFoundError");
      const what = gone ? "the file was changed, moved or removed since it was picked: pick it again" : "the browser could not read the file: pick it again";
      throw new DiskError("io", what, { path: this.name, offset, operation: "read" }, error);
    }
  }

  close(): void {}
}
