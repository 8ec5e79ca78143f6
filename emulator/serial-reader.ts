/** Text that nobody waited for is forgotten beyond this. */
const TRANSCRIPT_LIMIT = 1 << 20;
const EXCERPT = 400;

interface Waiter { readonly pattern: string | RegExp; readonly found: (text: string) => void; readonly stop: () => void }

/** Waits for words in what a serial port says. */
export class SerialReader {
  readonly #decoder = new TextDecoder();
  readonly #waiters = new Set<Waiter>();
  #unmatched = "";

  append(bytes: Uint8Array): void {
    this.#unmatched = (this.#unmatched + this.#decoder.decode(bytes, { stream: true })).slice(-TRANSCRIPT_LIMIT);
    this.#match();
  }

  /**
   * The output from where the last `waitFor` ended up to and with the first match of `pattern`; what is already there
   * counts. Fails after `timeout` ms.
   */
  waitFor(pattern: string | RegExp, timeout = 30_000): Promise<string> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(waiter);
      };
      const waiter: Waiter = { pattern, stop, found: (text) => {
        stop();
        resolve(text);
      } };
      const timer = setTimeout(() => {
        stop();
        reject(new Error(`no ${String(pattern)} on the serial port within ${timeout} ms; it ends in ${JSON.stringify(this.#unmatched.slice(-EXCERPT))}`));
      }, timeout);
      this.#waiters.add(waiter);
      this.#match();
    });
  }

  #match(): void {
    for (const { pattern, found } of this.#waiters) {
      const end = endOfMatch(this.#unmatched, pattern);
      if (end < 0) continue;
      const text = this.#unmatched.slice(0, end);
      this.#unmatched = this.#unmatched.slice(end);
      found(text);
    }
  }
}

function endOfMatch(text: string, pattern: string | RegExp): number {
  if (typeof pattern === "string") {
    const at = text.indexOf(pattern);
    return at < 0 ? -1 : at + pattern.length;
  }
  const match = new RegExp(pattern.source, pattern.flags.replace(/[gy]/g, "")).exec(text);
  return match ? match.index + match[0].length : -1;
}
