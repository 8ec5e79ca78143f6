import type { Disk } from "../../disk/disk.ts";
import { createQcow2, type Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import { open, type OpenOptions } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { brokenParallels } from "../support/parallels-inspect.ts";
import { PowerCutStorage } from "../support/powercut.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";
import { brokenVdi } from "../support/vdi-inspect.ts";
import { brokenVmdk } from "../support/vmdk-inspect.ts";
import { brokenVpc } from "../support/vpc-inspect.ts";
import type { CrashState } from "./states.ts";
import { Guest } from "./guest.ts";

/** Work on a storage that loses its power, and a judge of every file that this may leave. */
export interface Scenario {
  readonly name: string;
  readonly format?: string;
  /** Does the work, with the named barriers left out. */
  start(ignored?: ReadonlySet<string>): { readonly cut: PowerCutStorage; readonly judge: (state: CrashState) => string | undefined };
}

/** An image file, what its guest disk holds, and its external data file, which it calls "data". */
export interface Made { readonly bytes: Uint8Array; readonly contents: Uint8Array; readonly data?: Uint8Array }

export interface GuestWork {
  readonly name: string;
  /** The image before the work, and the guest disk's contents then. Called once. */
  image(): Made;
  readonly backing?: Uint8Array;
  readonly format?: string;
  readonly options?: OpenOptions;
  work(guest: Guest, reopen: () => void): void;
  /** More to demand of a state. */
  demand?(state: Uint8Array, initial: Uint8Array): string | undefined;
  /** The data file alone is the disk. */
  readonly raw?: true;
}

/** Opens at once, with the backing file that `bytes` names, if any. */
export function openNow(storage: MemoryStorage, backing?: Uint8Array, options: OpenOptions = {}, data?: MemoryStorage): Disk {
  const disk = open(storage, { gate: { open: (name) => (name === "data" && data !== undefined ? data : new MemoryStorage(backing ?? new Uint8Array(0), "base")) }, ...options });
  if (disk instanceof Promise) throw new Error("expected a synchronous open");
  return disk;
}

/** A scenario of a guest at work: no cut may cost it what it flushed, or the image its soundness. */
export function guestScenario(what: GuestWork): Scenario {
  let made: ReturnType<GuestWork["image"]> | undefined;
  const format = what.format ?? "qcow2";
  return {
    name: what.name, format,
    start(ignored) {
      const { bytes, contents, data } = (made ??= what.image());
      const cut = new PowerCutStorage(bytes, "top", ignored), second = data && new PowerCutStorage(data, "data", ignored, cut), options = { format, ...what.options };
      const guest = new Guest(cut, openNow(cut, what.backing, options, second), contents, what.backing);
      what.work(guest, () => {
        void guest.disk.close();
        guest.disk = openNow(cut, what.backing, options, second);
      });
      void guest.disk.close();
      return { cut, judge: (state) => what.demand?.(state.bytes, bytes) ?? (what.raw && rawVerdict(state, guest)) ?? verdict(state, guest, format, what.backing) };
    },
  };
}

/** What is broken in an image, by readers of their own. Raw cannot be. */
const INSPECT: Readonly<Record<string, (bytes: Uint8Array) => string | undefined>> = {
  qcow2: (bytes) => {
    const { corruptions } = inspectQcow2(bytes);
    return corruptions.length > 0 ? corruptions.slice(0, 3).join("; ") : undefined;
  },
  vdi: brokenVdi,
  vmdk: brokenVmdk,
  parallels: brokenParallels,
  vpc: (bytes) => (bytes[0] === 0x63 ? brokenVpc(bytes) : undefined),
};

/** Sound but for leaks, opens, holds what was flushed, and can be worked on. */
export function verdict({ bytes, data, at }: CrashState, guest: Guest, format: string, backing?: Uint8Array): string | undefined {
  try {
    const broken = INSPECT[format]?.(bytes);
    if (broken !== undefined) return `corrupt: ${broken}`;
    const storage = new MemoryStorage(bytes), disk = openNow(storage, backing, { format }, data && new MemoryStorage(data.slice(), "data"));
    const contents = new Uint8Array(disk.size);
    void disk.read(0, contents);
    return guest.complaint(contents, at) ?? unusable(storage, disk, contents, format);
  } catch (error) {
    return `failed: ${String(error)}`;
  }
}

/** What is wrong with a raw data file as the disk that it alone is. A resize is under way in one file before the other. */
function rawVerdict({ bytes, data = new Uint8Array(0), at }: CrashState, guest: Guest): string | undefined {
  const contents = new Uint8Array(Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(24)));
  contents.set(data.subarray(0, contents.length));
  const complaint = guest.complaint(contents, at);
  return complaint && `the raw data file: ${complaint}`;
}

/** What goes wrong when the guest goes on after the cut. */
function unusable(storage: MemoryStorage, disk: Disk, contents: Uint8Array, format: string): string | undefined {
  const news = new Uint8Array(700).fill(0x5a);
  for (const offset of [0, Math.floor(contents.length / 2), contents.length - 700]) {
    if (offset < 0 || offset + news.length > contents.length) continue;
    void disk.write(offset, news);
    contents.set(news, offset);
  }
  void disk.flush();
  const now = new Uint8Array(disk.size), broken = INSPECT[format]?.(storage.bytes);
  void disk.read(0, now);
  if (broken !== undefined) return `corrupt after going on: ${broken}`;
  return Buffer.compare(now, contents) === 0 ? undefined : "going on after the cut changed other bytes";
}

/** An image made by us, filled by `fill` before the recorded work begins. */
export function made(options: Qcow2CreateOptions, fill?: (disk: Disk) => void, backing?: Uint8Array): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createQcow2(file, options));
  const disk = openNow(file, backing);
  fill?.(disk);
  void disk.flush();
  const contents = new Uint8Array(disk.size);
  void disk.read(0, contents);
  void disk.close();
  return { bytes: file.bytes.slice(), contents };
}
