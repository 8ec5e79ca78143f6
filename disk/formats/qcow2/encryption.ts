import { getU64 } from "../../bytes/struct.ts";
import { legacyAes, unlockLuks } from "../../crypto/luks.ts";
import type { SectorCipher } from "../../crypto/sectors.ts";
import { DiskError } from "../../errors.ts";
import { EncryptedStorage } from "../../filters/encrypted.ts";
import type { Storage } from "../../storage.ts";
import { TaskQueue, type Task } from "../../task.ts";
import { EXTENSION } from "./extensions.ts";
import { AUTOCLEAR } from "./features.ts";
import type { Qcow2Header } from "./header.ts";

/** docs/interop/qcow2.rst, "crypt_method". */
export const CRYPT = { none: 0, aes: 1, luks: 2 } as const;
/** More than any LUKS header takes. */
const LARGEST = 64 * 2 ** 20;

/** Where the LUKS header stands in the file, in bytes. "Full disk encryption header pointer". */
export function encryptionHeader(header: Qcow2Header, path: string): { readonly offset: number; readonly length: number } | undefined {
  const data = header.extensions.find(({ type }) => type === EXTENSION.encryption)?.data;
  if (header.crypt !== CRYPT.luks) return undefined;
  if (data === undefined || data.length < 16) throw new DiskError("corrupt", "the place of the encryption header is missing", { path, format: "qcow2" });
  const view = new DataView(data.buffer, data.byteOffset), offset = getU64(view, 0), length = getU64(view, 8);
  if (offset % header.clusterSize !== 0 || offset === 0 || length > LARGEST) throw new DiskError("corrupt", "the encryption header stands at an impossible place", { path, offset, format: "qcow2" });
  return { offset, length };
}

/** How an image's data is encrypted: LUKS numbers the sectors of the file, the legacy AES those of the guest's disk. */
export class Encryption {
  readonly #parts = new TaskQueue();
  #last: EncryptedStorage | undefined;
  #under: Storage | undefined;

  private constructor(readonly cipher: SectorCipher, readonly byGuest: boolean) {}

  /** `secret`: the password. */
  static *open(file: Storage, header: Qcow2Header, secret: Uint8Array | undefined): Task<Encryption | undefined> {
    if (header.crypt === CRYPT.none) return undefined;
    const place = encryptionHeader(header, file.name);
    if ((header.autoclear & AUTOCLEAR.rawExternalData) !== 0n) throw new DiskError("unsupported", "the image is encrypted, and its data file is to be valid as a raw image: that cannot both be; use qemu-img", { path: file.name, format: "qcow2" });
    if (secret === undefined) {
      throw new DiskError("invalid-argument", "Parameter 'encrypt.key-secret' is required for cipher: the image is encrypted; give its password with --object secret,id=ID,file=FILE and name the image with --image-opts driver=qcow2,encrypt.key-secret=ID,file.filename=IMAGE", { path: file.name, format: "qcow2" });
    }
    const cipher = place === undefined ? yield* legacyAes(secret) : yield* unlockLuks(file, place.offset, place.length, secret);
    return new Encryption(cipher, place === undefined);
  }

  /** `storage`, where the guest's bytes from `guest` on stand at `host`, as the guest sees them. */
  over(storage: Storage, host: number, guest: number): Storage {
    const shift = this.byGuest ? guest - host : 0;
    if (this.#last?.shift !== shift || this.#under !== storage) [this.#last, this.#under] = [new EncryptedStorage(storage, this.cipher, shift, this.#parts), storage];
    return this.#last;
  }
}
