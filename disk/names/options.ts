import { DiskError } from "../errors.ts";
import { parseSize } from "../bytes/sizes.ts";
import { splitOptions } from "./pairs.ts";

export type Scalar = string | number | boolean | null;

const fail = (what: string): never => { throw new DiskError("invalid-argument", what); };

/**
 * The options of one block node and, under dotted names, of those below it, as QEMU's flattened dictionary: `driver`,
 * `file.filename`. What is taken is gone; `finish` refuses the rest.
 */
export class NodeOptions {
  readonly #left: Map<string, Scalar>;

  constructor(entries: Iterable<readonly [string, Scalar]> = []) {
    this.#left = new Map(entries);
  }

  get empty(): boolean {
    return this.#left.size === 0;
  }

  /** What was not taken yet. */
  entries(): [string, Scalar][] {
    return [...this.#left];
  }

  has(name: string): boolean {
    return this.#left.has(name);
  }

  hasChild(name: string): boolean {
    return [...this.#left.keys()].some((key) => key.startsWith(`${name}.`));
  }

  /** What the user gave stays. */
  setDefault(name: string, value: Scalar): void {
    if (!this.#left.has(name)) this.#left.set(name, value);
  }

  take(name: string): Scalar | undefined {
    const value = this.#left.get(name);
    this.#left.delete(name);
    return value;
  }

  string(name: string): string | undefined {
    const value = this.take(name);
    return value === undefined || typeof value === "string" ? value : fail(`Invalid parameter type for '${name}', expected: string`);
  }

  boolean(name: string): boolean | undefined {
    const value = this.take(name);
    if (value === undefined || typeof value === "boolean") return value;
    if (typeof value === "string" && /^(on|yes|true|y)$/.test(value)) return true;
    return typeof value === "string" && /^(off|no|false|n)$/.test(value) ? false : fail(`Parameter '${name}' expects 'on' or 'off'`);
  }

  /** Bytes, or any other number that is not negative; a text may have one of QEMU's suffixes. */
  size(name: string): number | undefined {
    const value = this.take(name), size = typeof value === "string" ? parseSize(value) : value;
    if (value === undefined) return undefined;
    if (typeof size === "number" && Number.isSafeInteger(size) && size >= 0) return size;
    return fail(`Parameter '${name}' expects a non-negative number below 2^53\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.`);
  }

  word(name: string, words: readonly string[]): string | undefined {
    const value = this.string(name);
    return value === undefined || words.includes(value) ? value : fail(`Parameter '${name}' does not accept value '${value}'; it takes ${words.join(", ")}`);
  }

  /** Takes the options of the node below that is called `name`. */
  child(name: string): NodeOptions {
    const prefix = `${name}.`, keys = [...this.#left.keys()].filter((key) => key.startsWith(prefix));
    return new NodeOptions(keys.map((key) => [key.slice(prefix.length), this.take(key) as Scalar]));
  }

  /** Refuses what nobody took. */
  finish(driver: string, protocol: boolean): void {
    const [name] = this.#left.keys();
    if (name !== undefined) fail(protocol ? `Block protocol '${driver}' doesn't support the option '${name}'` : `Block format '${driver}' does not support the option '${name}'`);
  }
}

/** Options from the object in `text`, the part of a name behind `json:`. Objects and lists within become dotted names. */
export function optionsFromJson(text: string): NodeOptions {
  const value = parsed(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) return fail("Invalid JSON object given");
  return new NodeOptions(flattened(value, ""));
}

const TEXTS = /"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'/gs;

/** As JSON, but texts may stand in single quotes, as QEMU has it. */
function parsed(text: string): unknown {
  const usual = text.replaceAll(TEXTS, (one) => (one.startsWith('"') ? one : `"${one.slice(1, -1).replaceAll("\\'", "'").replaceAll(/\\.|"/gs, (part) => (part === '"' ? '\\"' : part))}"`));
  try {
    return JSON.parse(usual);
  } catch (error) {
    return fail(`Could not parse the JSON options: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** More than any name needs, and little enough for the stack. */
const DEEPEST = 100;

function* flattened(value: object, prefix: string, depth = 0): Generator<[string, Scalar]> {
  if (depth > DEEPEST) fail("Could not parse the JSON options: the object is nested too deeply");
  for (const [key, inner] of Object.entries(value) as [string, unknown][]) {
    if (typeof inner === "object" && inner !== null) yield* flattened(inner, `${prefix}${key}.`, depth + 1);
    else yield [`${prefix}${key}`, inner as Scalar];
  }
}

/** Options from `driver=qcow2,file.filename=x`; a word alone in front is the value of `implied`. */
export function optionsFromPairs(text: string, implied: string): NodeOptions {
  const word = /^(?:,,|[^,=])*(?=,(?!,)|$)/.test(text);
  return new NodeOptions(splitOptions(word ? `${implied}=${text}` : text));
}
