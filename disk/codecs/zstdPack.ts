import { DiskError } from "../errors.ts";

type Encoder = (block: Uint8Array, level?: number) => Uint8Array;

/** zstd's own usual level, and QEMU's. */
const LEVEL = 3;

let encoder: Encoder | undefined;
let loading: Promise<Encoder> | undefined;

/**
 * Compresses `block` to one zstd frame; the result is the caller's. The encoder, 250 KB of WebAssembly, is loaded when
 * the first block comes: so that one is answered later, the others at once. Fails as `unsupported` where WebAssembly, or
 * the fetch of it, is forbidden.
 */
export function packZstd(block: Uint8Array): Uint8Array | Promise<Uint8Array> {
  if (encoder !== undefined) return encoder(block, LEVEL);
  return (loading ??= load()).then((ready) => ready(block, LEVEL));
}

async function load(): Promise<Encoder> {
  try {
    const { init, compress } = await import("@bokuweb/zstd-wasm");
    await init();
    return (encoder = compress);
  } catch (error) {
    loading = undefined;
    throw new DiskError("unsupported", "the zstd encoder does not start: allow WebAssembly here (Content-Security-Policy: script-src 'wasm-unsafe-eval'), or compress with zlib", { operation: "zstd" }, error);
  }
}
