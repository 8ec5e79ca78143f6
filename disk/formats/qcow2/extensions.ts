import { setU64, Struct, u32, u64, u8, bytes } from "../../bytes/struct.ts";
import { decodeText } from "../../bytes/text.ts";
import { DiskError } from "../../errors.ts";

/** Header extension types. docs/interop/qcow2.rst, "Header extensions". */
export const EXTENSION = { end: 0, backingFormat: 0xe2792aca, featureNames: 0x6803f857, bitmaps: 0x23852875, encryption: 0x0537be77, dataFile: 0x44415441 } as const;

/** One extension as it stands in the image; unknown ones are kept byte for byte. */
export interface Extension { readonly type: number; readonly data: Uint8Array }

/** What the known extensions say. */
export interface ExtensionSummary {
  readonly extensions: readonly Extension[];
  readonly backingFormat: string | undefined;
  readonly dataFile: string | undefined;
  /** `"type:bit"` to the image's own name for that feature. */
  readonly featureNames: ReadonlyMap<string, string>;
  readonly bitmapCount: number;
  readonly bitmapDirectory: { readonly offset: number; readonly size: number } | undefined;
}

const ExtensionHead = new Struct({ type: u32, length: u32 });
const FeatureName = new Struct({ type: u8, bit: u8, name: bytes(46) });
const Bitmaps = new Struct({ count: u32, reserved: u32, directorySize: u64, directoryOffset: u64 });

/** Reads the extensions between `from` and the end of `head`, which ends before the backing file name. */
export function readExtensions(head: Uint8Array, from: number, path: string): ExtensionSummary {
  const extensions: Extension[] = [];
  for (let at = from; at + ExtensionHead.size <= head.length;) {
    const { type, length } = ExtensionHead.parse(head, at);
    if (type === EXTENSION.end) break;
    at += ExtensionHead.size;
    if (length > head.length - at) throw new DiskError("corrupt", `header extension 0x${type.toString(16)} is ${length} bytes long and does not fit the header`, { path, offset: at, format: "qcow2" });
    extensions.push({ type, data: head.slice(at, at + length) });
    at += Math.ceil(length / 8) * 8;
  }
  const find = (type: number): Uint8Array | undefined => extensions.find((extension) => extension.type === type)?.data;
  const text = (type: number): string | undefined => {
    const data = find(type);
    return data === undefined ? undefined : decodeText(data, path);
  };
  return { extensions, backingFormat: text(EXTENSION.backingFormat), dataFile: text(EXTENSION.dataFile), featureNames: featureNames(find(EXTENSION.featureNames)), ...bitmaps(find(EXTENSION.bitmaps), path) };
}

function featureNames(data: Uint8Array | undefined): Map<string, string> {
  const names = new Map<string, string>();
  if (data === undefined) return names;
  for (let at = 0; at + FeatureName.size <= data.length; at += FeatureName.size) {
    const { type, bit, name } = FeatureName.parse(data, at);
    const end = name.indexOf(0);
    // A name only ever ends up in a message: bytes outside printable ASCII become "?".
    names.set(`${type}:${bit}`, Array.from(end < 0 ? name : name.subarray(0, end), (byte) => (byte >= 32 && byte < 127 ? String.fromCharCode(byte) : "?")).join(""));
  }
  return names;
}

function bitmaps(data: Uint8Array | undefined, path: string): Pick<ExtensionSummary, "bitmapCount" | "bitmapDirectory"> {
  if (data === undefined) return { bitmapCount: 0, bitmapDirectory: undefined };
  if (data.length < Bitmaps.size) throw new DiskError("corrupt", "the bitmaps extension is too short", { path, format: "qcow2" });
  const { count, directorySize, directoryOffset } = Bitmaps.parse(data);
  return { bitmapCount: count, bitmapDirectory: { offset: directoryOffset, size: directorySize } };
}

/** The bitmaps extension's data. */
export function formatBitmaps(count: number, directorySize: number, directoryOffset: number): Uint8Array {
  return Bitmaps.format({ count, reserved: 0, directorySize, directoryOffset });
}

/** The extensions as bytes, with the end marker. */
export function formatExtensions(extensions: readonly Extension[]): Uint8Array {
  const length = extensions.reduce((sum, { data }) => sum + ExtensionHead.size + Math.ceil(data.length / 8) * 8, ExtensionHead.size);
  const into = new Uint8Array(length);
  let at = 0;
  for (const { type, data } of extensions) {
    into.set(ExtensionHead.format({ type, length: data.length }), at);
    into.set(data, at + ExtensionHead.size);
    at += ExtensionHead.size + Math.ceil(data.length / 8) * 8;
  }
  setU64(new DataView(into.buffer), at, 0);
  return into;
}

/** The feature name table's data for `names`. */
export function formatFeatureNames(names: readonly (readonly [type: number, bit: number, name: string])[]): Uint8Array {
  const into = new Uint8Array(names.length * FeatureName.size);
  names.forEach(([type, bit, text], index) => {
    const name = new Uint8Array(46);
    name.set(Array.from(text, (letter) => letter.charCodeAt(0)));
    into.set(FeatureName.format({ type, bit, name }), index * FeatureName.size);
  });
  return into;
}
