import { DiskError, hex } from "../errors.ts";

/** How one field stands on disk. */
interface Kind<T> {
  readonly size: number;
  get(view: DataView, at: number, little: boolean): T;
  set(view: DataView, at: number, value: T, little: boolean): void;
}

const U32 = 2 ** 32;

export const u8: Kind<number> = { size: 1, get: (view, at) => view.getUint8(at), set: (view, at, value) => { view.setUint8(at, value); } };
export const u16: Kind<number> = { size: 2, get: (view, at, little) => view.getUint16(at, little), set: (view, at, value, little) => { view.setUint16(at, value, little); } };
export const u32: Kind<number> = { size: 4, get: (view, at, little) => view.getUint32(at, little), set: (view, at, value, little) => { view.setUint32(at, value, little); } };
/** An unsigned 64-bit value as a number; above 2^53 - 1 it is refused as corrupt: no offset or size is that large. */
export const u64: Kind<number> = { size: 8, get: getU64, set: setU64 };
/** 64 bits of flags, where every bit may be set. */
export const flags64: Kind<bigint> = { size: 8, get: (view, at, little) => view.getBigUint64(at, little), set: (view, at, value, little) => { view.setBigUint64(at, value, little); } };

/** `length` bytes as they are. `get` gives a copy. */
export function bytes(length: number): Kind<Uint8Array> {
  const part = (view: DataView, at: number): Uint8Array => new Uint8Array(view.buffer, view.byteOffset + at, length);
  return { size: length, get: (view, at) => part(view, at).slice(), set: (view, at, value) => { part(view, at).set(value); } };
}

export function getU64(view: DataView, at: number, little = false): number {
  const high = view.getUint32(little ? at + 4 : at, little), low = view.getUint32(little ? at : at + 4, little);
  if (high >= 2 ** 21) throw new DiskError("corrupt", `the 64-bit value ${hex(high)}${low.toString(16).padStart(8, "0")} is larger than any offset or size can be`);
  return high * U32 + low;
}

export function setU64(view: DataView, at: number, value: number, little = false): void {
  view.setUint32(little ? at + 4 : at, Math.floor(value / U32), little);
  view.setUint32(little ? at : at + 4, value % U32, little);
}

/** An on-disk structure: the names, types and order of its fields, and from them its size, parser and writer. */
export class Struct<V extends object> {
  readonly size: number;
  readonly #fields: { name: keyof V; at: number; kind: Kind<V[keyof V]> }[] = [];

  constructor(fields: { readonly [Name in keyof V]: Kind<V[Name]> }, readonly byteOrder: "big" | "little" = "big") {
    let at = 0;
    for (const name in fields) {
      const kind = fields[name] as unknown as Kind<V[keyof V]>;
      this.#fields.push({ name, at, kind });
      at += kind.size;
    }
    this.size = at;
  }

  /** Where field `name` stands, in bytes from the structure's start. */
  offsetOf(name: keyof V): number {
    const field = this.#fields.find((field) => field.name === name);
    if (field === undefined) throw new Error(`no field ${String(name)}`);
    return field.at;
  }

  /** Reads the structure at `at` of `from`, which must hold it whole. */
  parse(from: Uint8Array, at = 0): V {
    const view = new DataView(from.buffer, from.byteOffset + at, this.size), little = this.byteOrder === "little";
    const values: Partial<V> = {};
    for (const field of this.#fields) values[field.name] = field.kind.get(view, field.at, little);
    return values as V;
  }

  /** The structure's bytes for `values`. */
  format(values: V): Uint8Array {
    const into = new Uint8Array(this.size), view = new DataView(into.buffer), little = this.byteOrder === "little";
    for (const field of this.#fields) field.kind.set(view, field.at, values[field.name], little);
    return into;
  }
}
