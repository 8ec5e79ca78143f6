import { DiskError } from "../errors.ts";
import type { Pending } from "../storage.ts";
import { inflate, type Inflate, inflateLater, type InflateLater } from "./inflate.ts";

const HEADER = 2, CHECKSUM = 4, METHOD_DEFLATE = 8, PRESET_DICTIONARY = 0x20;

/** As `inflate`, for deflate in zlib's frame (RFC 1950), whose checksum is not looked at: where the stream ends is not known. */
export const inflateZlib: Inflate = (packed, into) => { inflate(unframed(packed), into); };

/** As `inflateZlib`, where `packed` is exactly the stream and `into` exactly as long as what it holds: with the checksum. */
export const inflateZlibChecked: Inflate = (packed, into) => {
  inflateZlib(packed, into);
  checkSum(packed, into);
};

/** The same, perhaps on another thread. */
export const inflateZlibCheckedLater: InflateLater = (packed, into): Pending => {
  const pending = inflateLater(unframed(packed), into);
  return pending ? pending.then(() => { checkSum(packed, into); }) : checkSum(packed, into);
};

function unframed(packed: Uint8Array): Uint8Array {
  const [method = 0, flags = 0] = packed;
  if ((method & 0x0f) !== METHOD_DEFLATE || (method * 256 + flags) % 31 !== 0 || (flags & PRESET_DICTIONARY) !== 0) throw damaged("has no zlib header");
  return packed.subarray(HEADER);
}

function checkSum(packed: Uint8Array, bytes: Uint8Array): void {
  const at = packed.length - CHECKSUM;
  if (at < HEADER || new DataView(packed.buffer, packed.byteOffset).getUint32(at) !== adler32(bytes)) throw damaged("has a wrong checksum");
}

function damaged(what: string): DiskError {
  return new DiskError("corrupt", `compressed data ${what}: the image is damaged`, { operation: "inflate" });
}

/** RFC 1950, section 9. So many bytes can be summed before 32 bits are too few. */
const MODULUS = 65521, SAFE = 5552;

function adler32(bytes: Uint8Array): number {
  let a = 1, b = 0;
  for (let start = 0; start < bytes.length; start += SAFE) {
    const end = Math.min(bytes.length, start + SAFE);
    for (let i = start; i < end; i++) {
      a += bytes[i] ?? 0;
      b += a;
    }
    a %= MODULUS;
    b %= MODULUS;
  }
  return b * 65536 + a;
}
