import { type Remote, wrap } from "comlink";
import { DiskError } from "../../disk/errors.ts";
import type { Bus } from "../../emulator/index.ts";
import { carryDiskErrors } from "../../emulator/worker-protocol.ts";
import { findGuest } from "../../guests/catalog.ts";
import { type Failure, toFailure } from "../model/failure.ts";
import { type BuiltGuest, builtGuests, guestUrl } from "../model/guests.ts";
import type { Base, KeptMachine, Settings } from "../model/machine.ts";
import { fileOfUrl } from "../model/names.ts";
import type { Exported } from "../worker/api.ts";
import type { PageWorker } from "../worker/page-worker.ts";
import { saveFile } from "./download.ts";
import { Observable } from "./observable.ts";
import { type BootRequest, Session } from "./session.ts";
import { startWorker } from "./worker.ts";

/** What the user chose for the next new machine. */
export interface Choice { readonly memory: number; readonly bus: Bus | "auto" }

/** A failure with what may be done about it. */
export interface Problem {
  readonly failure: Failure;
  readonly retry?: (() => void) | undefined;
  /** For a machine that is open elsewhere: the same, with nothing kept. */
  readonly temporary?: (() => void) | undefined;
}

export interface PageState {
  /** `undefined`: not known yet. */
  readonly guests?: readonly BuiltGuest[];
  readonly kept: readonly KeptMachine[];
  /** Whether this browser keeps anything, and whether it promised not to clear it by itself. */
  readonly canKeep?: boolean;
  readonly persisted: boolean;
  readonly choice: Choice;
  readonly session?: Session;
  /** The machine is being switched off. */
  readonly ending: boolean;
  readonly problem?: Problem;
  /** What was downloaded last. */
  readonly exported?: Exported & { readonly base: Base };
}

/** The page: what is there to boot, and the one machine that is on. */
export class PageStore extends Observable<PageState> {
  /** Answers about kept machines; each machine that is on has a worker of its own. */
  readonly #keeper: Remote<PageWorker>;
  /** A boot waits for it: a machine that could have been kept must not be lost to a quick click. */
  readonly #canKeep: Promise<boolean>;

  constructor() {
    super({ kept: [], persisted: false, choice: { memory: 128, bus: "auto" }, ending: false });
    carryDiskErrors();
    this.#keeper = wrap<PageWorker>(startWorker());
    this.#canKeep = this.#keeper.canKeep().catch(() => false);
    addEventListener("pagehide", () => this.state.session?.flush());
    document.addEventListener("visibilitychange", () => {
      if (document.visibilityState === "hidden") this.state.session?.flush();
      // What other tabs did meanwhile.
      else if (!this.state.session) void this.attempt(() => this.refresh());
    });
  }

  async load(): Promise<void> {
    await this.attempt(async () => {
      const [guests, canKeep, persisted] = await Promise.all([builtGuests().catch(() => []), this.#canKeep, isPersisted()]);
      this.set({ guests, canKeep, persisted });
      await this.refresh();
    }, () => void this.load());
  }

  async refresh(): Promise<void> {
    if (this.state.canKeep) this.set({ kept: await this.#keeper.list() });
  }

  choose(choice: Choice): void {
    this.set({ choice });
  }

  async bootGuest({ guest, url }: BuiltGuest): Promise<void> {
    const chosen = this.#settings("virtio"), settings = { ...chosen, memory: Math.max(chosen.memory, guest.memoryMiB.minimum) };
    await this.boot({
      title: guest.title, base: { kind: "guest", name: guest.name, url }, files: [], temporary: false, settings,
      expects: { prompt: guest.prompt, seconds: guest.bootSeconds[settings.bus] },
    });
  }

  async bootUrl(address: string): Promise<void> {
    const url = URL.parse(address.trim(), document.baseURI);
    if (!url || !/^https?:$/.test(url.protocol)) {
      return this.fail(new DiskError("invalid-argument", `'${address}' is not an address on the web: it begins with https:// or http://`));
    }
    await this.boot({ title: fileOfUrl(url.href), base: { kind: "url", url: url.href }, files: [], temporary: false, settings: this.#settings("ide") });
  }

  async bootFiles(files: readonly File[]): Promise<void> {
    const [first] = files;
    if (!first) return;
    const base: Base = { kind: "files", files: files.map(({ name, size }) => ({ name, size })) };
    await this.boot({ title: first.name, base, files, temporary: false, settings: this.#settings("ide") });
  }

  /** Goes on with a kept machine; one over picked files needs them again. */
  async continue({ record, settings }: KeptMachine, files: readonly File[] = []): Promise<void> {
    const { base, title } = record, guest = base.kind === "guest" ? findGuest(base.name) : undefined;
    await this.boot({
      title, files, temporary: false, settings,
      base: guest ? { kind: "guest", name: guest.name, url: guestUrl(guest.image) } : base,
      expects: guest && { prompt: guest.prompt, seconds: guest.bootSeconds[settings.bus] },
    });
  }

  async boot(order: BootRequest): Promise<void> {
    const request = (await this.#canKeep) ? order : { ...order, temporary: true };
    if (this.state.session) return;
    const session = new Session(request, { onFirstSave: () => void this.#askToPersist() });
    const { problem: _, exported: __, ...rest } = this.state;
    this.replace({ ...rest, session });
    try {
      await session.boot();
    } catch (error) {
      this.#leave();
      const locked = error instanceof DiskError && error.kind === "locked";
      this.#show(error, () => void this.boot(order), locked ? () => void this.boot({ ...order, temporary: true }) : undefined);
    }
    await this.attempt(() => this.refresh());
  }

  async powerOff(): Promise<void> {
    const { session } = this.state;
    if (!session) return;
    this.set({ ending: true });
    await this.attempt(() => session.powerOff());
    this.#leave();
    await this.attempt(() => this.refresh());
  }

  /** Deletes the changes; a machine that is on boots again without them. */
  async startFresh(id: string): Promise<void> {
    const { session } = this.state;
    await this.attempt(async () => {
      await this.powerOff();
      await this.#keeper.remove(id);
      await this.refresh();
      if (session) await this.boot(session.request);
    }, () => void this.startFresh(id));
  }

  async downloadRunning(): Promise<void> {
    const { session } = this.state;
    if (session) await this.attempt(async () => this.#save(await session.export(), session.request.base), () => void this.downloadRunning());
  }

  async downloadKept(kept: KeptMachine): Promise<void> {
    await this.attempt(async () => this.#save(await this.#keeper.exportKept(kept.record.id), kept.record.base), () => void this.downloadKept(kept));
  }

  fail(error: unknown): void {
    this.#show(error);
  }

  dismiss(what: "problem" | "exported"): void {
    const { [what]: _, ...rest } = this.state;
    this.replace(rest);
  }

  /** Whatever fails is shown, with a way to try again if there is one. */
  async attempt(action: () => Promise<unknown>, retry?: () => void): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#show(error, retry);
    }
  }

  /** What nobody knows the insides of gets the bus that every system knows. */
  #settings(best: Bus): Settings {
    const { memory, bus } = this.state.choice;
    return { memory, bus: bus === "auto" ? best : bus };
  }

  #show(error: unknown, retry?: () => void, temporary?: () => void): void {
    this.set({ problem: { failure: toFailure(error), retry, temporary } });
  }

  #leave(): void {
    const { session: _, ...rest } = this.state;
    this.replace({ ...rest, ending: false });
  }

  #save(exported: Exported, base: Base): void {
    saveFile(exported.file, exported.name);
    this.set({ exported: { ...exported, base } });
  }

  /** Browsers decide by how much the page is used; asked once there is something to lose. */
  async #askToPersist(): Promise<void> {
    this.set({ persisted: (await isPersisted()) || (await navigator.storage.persist().catch(() => false)) });
  }
}

async function isPersisted(): Promise<boolean> {
  // Without https there is no `storage` at all.
  return "storage" in navigator && (await navigator.storage.persisted().catch(() => false));
}
