import { type ClientConfig, MachineClient, type WorkerDiskError } from "../../emulator/client.ts";
import type { TestDisk, TestWorker } from "./machine.worker.ts";

/** What machine.test.ts calls in the page. Bytes come as base64. */
export interface MachinePage {
  create(images: { bios: string; vgaBios: string; disk: string; bad?: number; missing?: boolean; memory?: number; bus?: "ide" | "virtio" }): Promise<void>;
  start(): Promise<void>;
  waitForSerial(words: string): Promise<string>;
  sendSerial(text: string): Promise<void>;
  screenText(): Promise<string[]>;
  /** RGBA of the page's canvas, and its size. */
  canvas(): Promise<{ width: number; height: number; colours: number[][] }>;
  heal(): Promise<void>;
  failures: WorkerDiskError[];
  decide(id: number): Promise<void>;
  state: Uint8Array | undefined;
  save(): Promise<number>;
  restore(): Promise<void>;
  events: string[];
  statistics(): Promise<string>;
  destroy(): Promise<void>;
}

let client: MachineClient<TestDisk, TestWorker> | undefined;
const made = (): MachineClient<TestDisk, TestWorker> => {
  if (!client) throw new Error("no machine");
  return client;
};
const decode = (base64: string): Uint8Array<ArrayBuffer> => Uint8Array.from(atob(base64), (character) => character.codePointAt(0) ?? 0);

async function create({ bios, vgaBios, disk, bad, missing, memory = 16, bus = "virtio" }: Parameters<MachinePage["create"]>[0]): Promise<void> {
  const canvas = document.createElement("canvas");
  document.body.replaceChildren(canvas);
  page.failures.length = page.events.length = 0;
  const config: ClientConfig<TestDisk> = {
    bios: decode(bios), vgaBios: decode(vgaBios), wasm: "/v86.wasm", memory, canvas, askOnDiskError: true,
    drives: [{ disk: { bytes: decode(disk), ...(bad === undefined ? {} : { bad }), ...(missing ? { missing } : {}) }, bus }],
  };
  client = await MachineClient.create<TestDisk, TestWorker>(new Worker("/worker.js", { type: "module" }), config).catch((error: Error & { kind?: string }) => {
    throw new Error(`${error.name} ${error.kind}: ${error.message}`, { cause: error });
  });
  client.on("disk-error", (failure) => page.failures.push(failure));
  client.on("screen", (mode) => page.events.push(`screen ${mode.width}x${mode.height}`));
  client.on("stopped", () => page.events.push("stopped"));
  client.on("started", () => page.events.push("started"));
}

/** Colours along the first line, and in the middle of the last. */
async function readCanvas(): ReturnType<MachinePage["canvas"]> {
  const canvas = document.querySelector("canvas");
  if (!canvas) throw new Error("no canvas");
  await new Promise((resolve) => requestAnimationFrame(resolve));
  const bitmap = await createImageBitmap(canvas);
  const copy = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = copy.getContext("2d");
  if (!context) throw new Error("no context");
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, 1);
  const colours = Array.from({ length: 16 }, (_, x) => [...data.subarray(x * 4, x * 4 + 3)]);
  return { width: bitmap.width, height: bitmap.height, colours };
}

const page: MachinePage = {
  create,
  start: () => made().start(),
  waitForSerial: (words) => made().waitForSerial(words, 60_000),
  sendSerial: (text) => made().sendSerial(text),
  screenText: () => made().screenText(),
  canvas: readCanvas,
  heal: () => made().remote.heal(),
  failures: [],
  decide: (id) => made().decide(id, "retry"),
  state: undefined,
  save: async () => {
    page.state = await made().save();
    return page.state.length;
  },
  restore: async () => { if (page.state) await made().restore(page.state); },
  events: [],
  statistics: async () => JSON.stringify(await made().statistics()),
  destroy: () => made().destroy(),
};

Object.assign(globalThis, { machinePage: page });
