import { type Remote, transfer, wrap } from "comlink";
import wasmUrl from "v86/build/v86.wasm?url";
import { DiskError } from "../../disk/errors.ts";
import { MachineClient, type WorkerDiskError } from "../../emulator/client.ts";
import type { ScreenMode } from "../../emulator/index.ts";
import { bios } from "../../guests/catalog.ts";
import { type Failure, toFailure } from "../model/failure.ts";
import { guestUrl } from "../model/guests.ts";
import type { SaveState, Stage, Traffic } from "../model/machine.ts";
import type { DiskEvent, DiskFacts, DiskOrder, Exported } from "../worker/api.ts";
import type { PageWorker } from "../worker/page-worker.ts";
import { Observable } from "./observable.ts";
import { startWorker } from "./worker.ts";

/** What to boot. */
export interface BootRequest extends DiskOrder {
  /** What the guest says on the serial port when it is ready, and about how many seconds that takes; if known. */
  readonly expects?: { readonly prompt: string; readonly seconds: number } | undefined;
}

/** What the page shows of a machine that is on. */
export interface MachineView {
  readonly stage: Stage | "bios" | "on";
  readonly running: boolean;
  readonly halted: boolean;
  /** When it was switched on, and when its prompt came; ms of `performance.now()`. */
  readonly started?: number;
  readonly ready?: number;
  readonly save?: SaveState;
  readonly traffic?: Traffic;
  readonly facts?: DiskFacts;
  readonly mode: ScreenMode;
  /** Requests of the guest that failed; it is held until `decide`. */
  readonly questions: readonly { readonly id: number; readonly failure: Failure }[];
  /** The last failure that the guest saw as an I/O error, or that kept changes from being saved. */
  readonly trouble?: Failure;
}

type Client = MachineClient<DiskOrder, PageWorker>;

const BOOT_PATIENCE = 600_000;
const FIRST_MODE: ScreenMode = { graphical: false, columns: 80, rows: 25, width: 720, height: 400 };

/** One machine from its boot to its end, in a worker of its own. */
export class Session extends Observable<MachineView> {
  /** The worker paints it. */
  readonly canvas = document.createElement("canvas");
  readonly #worker = startWorker();
  #client: Client | undefined;
  #listener: ((bytes: Uint8Array) => void) | undefined;
  #early: Uint8Array[] = [];
  #firstSave: (() => void) | undefined;
  #awaiting = false;

  constructor(readonly request: BootRequest, hooks: { readonly onFirstSave: () => void }) {
    super({ stage: "bios", running: false, halted: false, questions: [], mode: FIRST_MODE });
    this.#firstSave = hooks.onFirstSave;
  }

  /** Opens the disk and switches on. After a failure there is nothing left to end. */
  async boot(): Promise<void> {
    try {
      const [system, vga] = await Promise.all([firmware(bios.system), firmware(bios.vga)]);
      await Promise.race([this.#create(system, vga), this.#workerFails()]);
    } catch (error) {
      this.#worker.terminate();
      throw error;
    }
  }

  /** The serial port's output from now on, and what was not yet taken. */
  onSerial(listener: (bytes: Uint8Array) => void): () => void {
    this.#listener = listener;
    for (const bytes of this.#early.splice(0)) listener(bytes);
    return () => { this.#listener = undefined; };
  }

  sendSerial(data: string | Uint8Array): void {
    this.#do((client) => client.sendSerial(data));
  }

  sendScancodes(codes: readonly number[]): void {
    this.#do((client) => client.sendScancodes(codes));
  }

  type(text: string): void {
    this.#do((client) => client.type(text));
  }

  /** The guest reboots. */
  reset(): void {
    const { ready: _, ...rest } = this.state;
    this.replace({ ...rest, halted: false, started: performance.now() });
    this.#do(async (client) => {
      // What was said before is not what the next boot says.
      await client.waitForSerial(/^[^]*/);
      await client.reset();
      await client.start();
      this.#awaitPrompt(client);
    });
  }

  togglePause(): void {
    this.#do((client) => (this.state.running ? client.pause() : client.resume()));
  }

  decide(verdict: "retry" | "fail"): void {
    const { questions } = this.state;
    this.set({ questions: [] });
    for (const { id } of questions) this.#do((client) => client.decide(id, verdict));
  }

  dismissTrouble(): void {
    const { trouble: _, ...rest } = this.state;
    this.replace(rest);
  }

  async export(): Promise<Exported> {
    return await this.#mustClient().remote.exportRunning();
  }

  /** Best effort, for a page that is being left. */
  flush(): void {
    this.#do((client) => client.remote.flush());
  }

  /** Everything is saved and closed, and the worker ends. */
  async powerOff(): Promise<void> {
    await this.#client?.destroy();
  }

  async #create(biosImage: ArrayBuffer, vgaBios: ArrayBuffer): Promise<void> {
    const { settings, expects: _, ...order } = this.request;
    const remote: Remote<PageWorker> = wrap(this.#worker);
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }: MessageEvent<DiskEvent>) => this.#diskEvent(data);
    await remote.listen(transfer(port2, [port2]));
    const client: Client = this.#client = await MachineClient.create<DiskOrder, PageWorker>(this.#worker, {
      bios: biosImage, vgaBios, wasm: new URL(wasmUrl, location.href).href, memory: settings.memory,
      drives: [{ disk: { ...order, settings }, bus: settings.bus }], canvas: this.canvas, askOnDiskError: true,
    });
    this.set({ facts: await remote.facts(), stage: "starting" });
    this.#listen(client);
    await client.start();
    this.set({ stage: "on", started: performance.now() });
    this.#awaitPrompt(client);
  }

  /** An answer never comes from a worker whose script did not load; later failures are shown beside the machine. */
  #workerFails(): Promise<never> {
    return new Promise((_, reject) => {
      this.#worker.onerror = (event) => {
        event.preventDefault();
        const error = new DiskError("io", `the machine's worker failed (${event.message || "its script did not load"}): reload the page`);
        this.set({ trouble: toFailure(error) });
        reject(error);
      };
    });
  }

  #listen(client: Client): void {
    client.on("serial", (bytes) => {
      if (this.#listener) this.#listener(bytes);
      else this.#early.push(bytes);
    });
    client.on("screen", (mode) => this.set({ mode }));
    client.on("started", () => this.set({ running: true }));
    client.on("stopped", () => this.set({ running: false }));
    client.on("halted", () => this.set({ halted: true }));
    client.on("disk-error", (error) => this.#diskError(error));
  }

  #awaitPrompt(client: Client): void {
    const { expects } = this.request;
    if (!expects || this.#awaiting) return;
    this.#awaiting = true;
    const done = (): void => { this.#awaiting = false; };
    client.waitForSerial(expects.prompt, BOOT_PATIENCE).then(() => this.set({ ready: performance.now() }), () => undefined).finally(done);
  }

  #diskEvent(event: DiskEvent): void {
    switch (event.type) {
      case "stage": return this.set({ stage: event.stage });
      case "traffic": return this.set({ traffic: event.traffic });
      case "save-error": return this.set({ trouble: event.failure });
      case "save": {
        if (event.save.state === "saved" && this.state.save?.state === "saving") {
          this.#firstSave?.();
          this.#firstSave = undefined;
        }
        this.set({ save: event.save });
      }
    }
  }

  /** A base on the web or in a file may come back: the guest is held until someone says. Anything else is the guest's to handle. */
  #diskError({ id, operation, kind, message }: WorkerDiskError): void {
    const failure: Failure = { kind, message, what: message, context: { operation } };
    if (operation === "read" && kind === "io") return this.set({ questions: [...this.state.questions, { id, failure }] });
    this.set({ trouble: failure });
    this.#do((client) => client.decide(id, "fail"));
  }

  #mustClient(): Client {
    if (!this.#client) throw new DiskError("invalid-argument", "the machine is not on yet");
    return this.#client;
  }

  /** A call whose answer nobody waits for; its failure is shown all the same. */
  #do(action: (client: Client) => Promise<unknown>): void {
    if (this.#client) action(this.#client).catch((error: unknown) => this.set({ trouble: toFailure(error) }));
  }
}

async function firmware(file: string): Promise<ArrayBuffer> {
  const url = guestUrl(file), context = { path: url, operation: "load" };
  let response: Response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new DiskError("io", "the machine's BIOS could not be loaded: check the network", context, error);
  }
  const type = response.headers.get("content-type") ?? "";
  if (response.ok && !type.startsWith("text/html")) return await response.arrayBuffer();
  throw new DiskError("not-found", "the machine's BIOS is not on this server: build it with 'bash guests/build.sh bios', and serve guests/out as guests/ beside the page", context);
}
