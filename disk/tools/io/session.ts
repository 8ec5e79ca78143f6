import type { Disk } from "../../disk.ts";
import { DiskError } from "../../errors.ts";
import { raw } from "../../formats/raw/index.ts";
import { probe } from "../../formats/registry.ts";
import type { Pending } from "../../storage.ts";
import { CACHES } from "../arguments.ts";
import { type AccessOptions, openImageDisk } from "../images.ts";
import { CommandError, type Output } from "../verb.ts";
import { Failed } from "./command.ts";
import { withTemporaryOverlay } from "./temporary.ts";

/** How an image is opened: what the command line and `open` say. */
export interface Access {
  readonly format: string | undefined;
  /** How its name is to be read, and its secrets. */
  readonly source: AccessOptions;
  readonly readOnly: boolean;
  /** Changes go to memory and are forgotten. */
  readonly temporary: boolean;
  readonly cache: string;
  readonly discard: string;
}

const DISCARDS = new Set(["ignore", "off", "unmap", "on"]);
/** The cache modes in which a write is durable when it completes. */
const THROUGH = new Set(["writethrough", "directsync"]);
/** How much of a file tells its format. */
const HEAD = 4096, RESTRICTED = 512;

const WORDS: Partial<Record<DiskError["kind"], string>> = {
  "no-space": "No space left on device", unsupported: "Operation not supported", "invalid-argument": "Invalid argument", "read-only": "Operation not permitted",
};

/** Kinds of errors of which the words above say all. */
const PLAIN: ReadonlySet<DiskError["kind"]> = new Set(["out-of-bounds", "unsupported", "invalid-argument"]);

/** The image that is open, and the requests that are under way. */
export class Session {
  /** `quit` was said. */
  done = false;
  /** A command failed. */
  failed = false;
  #disk: Disk | undefined;
  #file = "";
  #access: Access | undefined;
  #guessedRaw = false;
  readonly #pending = new Set<Promise<void>>();

  /** `secrets`: what the options of encrypted images may name. */
  constructor(readonly output: Output, readonly secrets: AccessOptions["secrets"]) {}

  get isOpen(): boolean {
    return this.#disk !== undefined;
  }

  get access(): Access | undefined {
    return this.#access;
  }

  get disk(): Disk {
    if (this.#disk === undefined) throw new Failed("no file open, try 'help open'", "error");
    return this.#disk;
  }

  async open(file: string, access: Access): Promise<void> {
    if (!CACHES.has(access.cache)) throw new CommandError(`Invalid cache option: ${access.cache}`);
    if (!DISCARDS.has(access.discard)) throw new CommandError(`Invalid discard option: ${access.discard}`);
    if (this.isOpen) throw new CommandError("file open already, try 'help close'");
    if (!access.source.lock && !access.readOnly) throw new CommandError(`can't open device ${file}: force-share=on can only be used with read-only images`);
    try {
      const writable = !access.readOnly && !access.temporary;
      const { disk, guessed } = await openImageDisk(file, access.format, { ...access.source, writable });
      this.#disk = access.temporary && !access.readOnly ? await withTemporaryOverlay(disk) : disk;
      this.#guessedRaw = guessed && disk.chain[0].format === raw.name;
    } catch (error) {
      throw error instanceof DiskError ? new CommandError(`can't open device ${file}: ${error.what}`, 1, { cause: error }) : error;
    }
    [this.#file, this.#access] = [file, access];
    if (this.#guessedRaw && !access.readOnly) this.output.error(guessWarning(file));
  }

  /** Opens the same image again in another way. */
  async reopen(change: Partial<Access>): Promise<void> {
    const file = this.#file, access = this.#access;
    if (access === undefined) return;
    await this.close();
    try {
      await this.open(file, { ...access, ...change });
    } catch (error) {
      await this.open(file, access);
      throw error;
    }
  }

  /** Waits for every request under way, and closes the image. */
  async close(): Promise<void> {
    await this.drain();
    const disk = this.#disk;
    this.#disk = undefined;
    await disk?.close();
  }

  async drain(): Promise<void> {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  /** A request that no command waits for: that it failed is only told. */
  background(request: () => Promise<void>): void {
    const running = request().catch((error: unknown) => { this.complain(error); }).finally(() => { this.#pending.delete(running); });
    this.#pending.add(running);
  }

  /** Tells of a failure; what is none of ours is thrown on. */
  complain(error: unknown): void {
    if (!(error instanceof Failed)) throw error;
    if (error.message !== "") this.output[error.to](`${error.message}\n`);
  }

  /** Runs a request; `what` begins the complaint. */
  async request(what: string, work: () => Pending): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      if (!PLAIN.has(error.kind)) this.output.error(`${error.message}\n`);
      throw new Failed(`${what} failed: ${WORDS[error.kind] ?? "Input/output error"}`, "out", { cause: error });
    }
  }

  read(offset: number, into: Uint8Array): Pending {
    this.#within(offset, into.length);
    return this.disk.read(offset, into);
  }

  /** `durable`: it survives a power cut when this ends. */
  async write(offset: number, bytes: Uint8Array, durable: boolean): Promise<void> {
    this.#within(offset, bytes.length);
    await this.#restrict(offset, bytes);
    await this.disk.write(offset, bytes);
    await this.settle(durable);
  }

  /** Whole clusters, compressed. */
  async writePacked(offset: number, bytes: Uint8Array): Promise<void> {
    this.#within(offset, bytes.length);
    await this.disk.writePacked(offset, bytes);
    await this.settle(false);
  }

  async zero(offset: number, length: number, unmap: boolean, durable: boolean): Promise<void> {
    this.#within(offset, length);
    await this.disk.zero(offset, length, !unmap);
    await this.settle(durable);
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#within(offset, length);
    if (this.#access?.discard === "unmap" || this.#access?.discard === "on") await this.disk.discard(offset, length);
  }

  /** After a write, as the cache mode has it. */
  async settle(durable: boolean): Promise<void> {
    if (durable || THROUGH.has(this.#access?.cache ?? "")) await this.disk.flush();
  }

  #within(offset: number, length: number): void {
    if (offset + length > this.disk.size) throw new DiskError("out-of-bounds", `the disk has ${this.disk.size} bytes`, { path: this.#file, offset });
  }

  /** A disk that was only guessed to be raw must not begin to look like an image of some format. */
  async #restrict(offset: number, bytes: Uint8Array): Promise<void> {
    if (!this.#guessedRaw || offset >= RESTRICTED || bytes.length === 0) return;
    const head = new Uint8Array(Math.min(HEAD, this.disk.size));
    await this.disk.read(0, head);
    head.set(bytes.subarray(0, head.length - offset), offset);
    if (probe(head) !== raw) throw new DiskError("read-only", "the format was only guessed to be raw, and this would make it look like another: give it with -f raw", { path: this.#file, offset });
  }
}

function guessWarning(file: string): string {
  return `WARNING: Image format was not specified for '${file}' and probing guessed raw.
         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.
         Specify the 'raw' format explicitly to remove the restrictions.
`;
}
