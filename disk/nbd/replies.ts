import type { Extent } from "./export.ts";
import { put16, put32, put64 } from "./message.ts";
import { CHUNK, Chunk, CHUNK_MAGIC, DATA_OFFSET, DONE, SIMPLE_REPLY_MAGIC } from "./protocol.ts";

/** The client's own number of a request, as two u32. */
export interface Cookie { readonly high: number; readonly low: number }

/** A part of a read's range. */
export interface Piece { readonly offset: number; readonly length: number; readonly hole: boolean }

/** Where a part of the data goes in a reply. */
export interface Place { readonly offset: number; readonly into: Uint8Array }

const HOLE = DATA_OFFSET + 4, DESCRIPTOR = 8;

export function putSimple(into: Uint8Array, at: number, { high, low }: Cookie, errno: number): void {
  put32(into, at, SIMPLE_REPLY_MAGIC);
  put32(into, at + 4, errno);
  put32(into, at + 8, high);
  put32(into, at + 12, low);
}

/** The header of a chunk with `length` bytes of payload. */
export function putChunk(into: Uint8Array, at: number, flags: number, type: number, { high, low }: Cookie, length: number): void {
  put32(into, at, CHUNK_MAGIC);
  put16(into, at + 4, flags);
  put16(into, at + 6, type);
  put32(into, at + 8, high);
  put32(into, at + 12, low);
  put32(into, at + 16, length);
}

/** How long a reply of these pieces is. */
export function piecesSize(pieces: readonly Piece[]): number {
  return pieces.reduce((sum, { length, hole }) => sum + CHUNK + (hole ? HOLE : DATA_OFFSET + length), 0);
}

/** Writes the reply without its data; the result says where that belongs. */
export function putPieces(into: Uint8Array, cookie: Cookie, pieces: readonly Piece[]): Place[] {
  const wanted: Place[] = [];
  let at = 0;
  for (const [index, { offset, length, hole }] of pieces.entries()) {
    const payload = hole ? HOLE : DATA_OFFSET + length, data = at + CHUNK + DATA_OFFSET;
    putChunk(into, at, index === pieces.length - 1 ? DONE : 0, hole ? Chunk.offsetHole : Chunk.offsetData, cookie, payload);
    put64(into, at + CHUNK, offset);
    if (hole) put32(into, data, length);
    else wanted.push({ offset, into: into.subarray(data, data + length) });
    at += CHUNK + payload;
  }
  return wanted;
}

/** The whole reply to `NBD_CMD_BLOCK_STATUS`: a chunk for each context, in their order. */
export function blockStatusReply(cookie: Cookie, found: readonly (readonly Extent[])[]): Uint8Array {
  const into = new Uint8Array(found.reduce((sum, { length }) => sum + CHUNK + 4 + DESCRIPTOR * length, 0));
  let at = 0;
  for (const [id, extents] of found.entries()) {
    putChunk(into, at, id === found.length - 1 ? DONE : 0, Chunk.blockStatus, cookie, 4 + DESCRIPTOR * extents.length);
    put32(into, at + CHUNK, id);
    at += CHUNK + 4;
    for (const { length, flags } of extents) {
      put32(into, at, length);
      put32(into, at + 4, flags);
      at += DESCRIPTOR;
    }
  }
  return into;
}
