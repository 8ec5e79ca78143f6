import type { CreateOption, CreateValues } from "../formats/creation.ts";
import { splitOptions } from "../names/pairs.ts";
import { integer, parseSize } from "./sizes.ts";
import { CommandError } from "./verb.ts";

export { splitOptions };

/** Option values of `-o`: what they mean, and how QEMU would print them. */
export class OptionValues {
  readonly #values = new Map<string, { readonly value: string | number | boolean; readonly text: string }>();

  constructor(readonly table: readonly CreateOption[]) {}

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get(name: string): string | number | boolean | undefined {
    return this.#values.get(name)?.value;
  }

  set(name: string, text: string): void {
    const option = this.table.find((one) => one.name === name);
    if (option === undefined) throw new CommandError(`Invalid parameter '${name}'`);
    this.#values.set(name, parse(option, text));
  }

  setSize(bytes: number): void {
    this.#values.set("size", { value: bytes, text: integer(bytes) });
  }

  /** Only what was given. */
  given(): CreateValues {
    return Object.fromEntries([...this.#values].map(([name, { value }]) => [name, value]));
  }

  /** With the defaults of what was not given. */
  all(): CreateValues {
    return Object.fromEntries(this.#effective().map(([name, { value }]) => [name, value]));
  }

  /** `cluster_size=65536 size=1048576`: in the table's order. */
  toString(): string {
    return this.#effective().map(([name, { text }]) => `${name}=${text}`).join(" ");
  }

  #effective(): [string, { readonly value: string | number | boolean; readonly text: string }][] {
    return this.table.flatMap((option) => {
      const given = this.#values.get(option.name) ?? (option.initial === undefined ? undefined : parse(option, option.initial));
      return given === undefined ? [] : [[option.name, given] as [string, typeof given]];
    });
  }
}

const TRUE = new Set(["on", "yes", "true", "y"]), FALSE = new Set(["off", "no", "false", "n"]);

function parse({ name, type }: CreateOption, text: string): { value: string | number | boolean; text: string } {
  switch (type) {
    case "string": return { value: text, text: text.replaceAll(",", ",,") };
    case "boolean": {
      if (!TRUE.has(text) && !FALSE.has(text)) throw new CommandError(`Parameter '${name}' expects 'on' or 'off'`);
      return { value: TRUE.has(text), text };
    }
    case "number": {
      if (!/^\d+$/.test(text)) throw new CommandError(`Parameter '${name}' expects a number`);
      return { value: Number(text), text: integer(Number(text)) };
    }
    case "size": {
      const size = parseSize(text);
      if (size === undefined || size >= 2 ** 64) throw new CommandError(`Parameter '${name}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.`);
      return { value: size, text: integer(size) };
    }
  }
}

const TYPE_NAMES: Record<CreateOption["type"], string> = { string: "<str>", size: "<size>", number: "<num>", boolean: "<bool (on/off)>" };

/** What `-o help` prints; `title`, if it is not about making an image. */
export function optionHelp(format: string, table: readonly CreateOption[], title = `Supported ${format} options:`): string {
  const lines = table.toSorted((a, b) => (a.name < b.name ? -1 : 1)).map(({ name, type, help }) => `  ${`${name}=${TYPE_NAMES[type]}`.padEnd(22)} - ${help}\n`);
  return `${title}\n${lines.join("")}`;
}
