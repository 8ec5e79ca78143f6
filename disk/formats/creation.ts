import type { Gate } from "../gate.ts";
import type { Progress } from "../image.ts";
import type { Storage } from "../storage.ts";
import type { Task } from "../task.ts";

/** One `-o` option of `create`, named and described as qemu-img does. */
export interface CreateOption {
  readonly name: string;
  readonly type: "string" | "size" | "number" | "boolean";
  readonly help: string;
  /** As it would be typed. Without one the option is unset. */
  readonly initial?: string;
}

/** Values by option name. A `size` or `number` is a number, a `boolean` one; what was not given and has no default is absent. */
export type CreateValues = Readonly<Record<string, string | number | boolean | undefined>>;

/** Where an image that is being made gets its further files; as a gate it opens them, and others that the image will name. */
export interface NewFiles extends Gate {
  /** The name that the image itself will have; its storage may have another until it is complete. */
  readonly name: string;
  /** Makes `name`, relative to `this.name`, an empty file that gets its name when the image does. The caller closes it. */
  create(name: string): Storage | Promise<Storage>;
}

/** How empty images of a format are made. */
export interface Creation {
  /** In the order in which qemu-img lists a new image's options. `size` is in bytes; with `backing_file` the format can have one. */
  readonly options: readonly CreateOption[];
  /** `secrets`: passwords by the ID that an option names. Checks the values, and answers how the image is made in a storage: nothing is touched before it is known to be possible. */
  plan(values: CreateValues, secrets?: ReadonlyMap<string, Uint8Array>): (into: Storage, files: NewFiles, progress?: Progress) => Task;
  /** How large a new image's file gets, for values that `plan` takes. Without `data` it stays empty. Absent: nobody knows. */
  measure?(values: CreateValues, data: DataIn | undefined): Task<Measurement>;
}

/** How many bytes are in the blocks of this size that have any of the data that is to go in. */
export type DataIn = (block: number) => Task<number>;

/** Bytes: with the data that is to go in, and with all that there can be. */
export interface Measurement { readonly required: number; readonly fullyAllocated: number }
