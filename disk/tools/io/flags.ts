import { Misused } from "./command.ts";

/** What a command was given. */
export class Given {
  readonly #flags = new Map<string, string>();
  readonly words: string[] = [];

  has(flag: string): boolean {
    return this.#flags.has(flag);
  }

  /** The last value given with a flag. */
  value(flag: string): string | undefined {
    return this.#flags.get(flag);
  }

  /** The words that are no flags, if there are as many. */
  exactly(count: number): readonly string[] {
    if (this.words.length !== count) throw new Misused();
    return this.words;
  }

  set(flag: string, value: string): void {
    this.#flags.set(flag, value);
  }
}

/** The words of a command that has no flags: what begins with a dash is a word, too. */
export function plainWords(words: readonly string[]): Given {
  const given = new Given();
  given.words.push(...words);
  return given;
}

/**
 * Reads a command's words as getopt does: flags anywhere, several behind one dash, `--` ends them. `flags` names them,
 * one with a colon has a value. Throws `Misused` with getopt's complaint.
 */
export function readFlags(name: string, words: readonly string[], flags: string): Given {
  const given = new Given();
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (word === "--") {
      given.words.push(...words.slice(at + 1));
      break;
    }
    if (word.length < 2 || !word.startsWith("-")) {
      given.words.push(word);
      continue;
    }
    for (let letter = 1; letter < word.length; letter++) {
      const flag = word[letter] ?? "", place = flag === ":" ? -1 : flags.indexOf(flag);
      if (place < 0) throw new Misused(`${name}: invalid option -- '${flag}'`);
      if (flags[place + 1] !== ":") {
        given.set(flag, "");
        continue;
      }
      const value = letter + 1 < word.length ? word.slice(letter + 1) : words[++at];
      if (value === undefined) throw new Misused(`${name}: option requires an argument -- '${flag}'`);
      given.set(flag, value);
      break;
    }
  }
  return given;
}
