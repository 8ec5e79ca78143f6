import { createVhdx } from "../../disk/formats/vhdx/create.ts";
import { checkVhdx } from "../../disk/formats/vhdx/check.ts";
import { openDisk } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run, wait } from "../../disk/task.ts";
import { batAfterReplay, brokenVhdx, isVhdx } from "../support/vhdx-inspect.ts";
import { creation, KIB } from "./blockScenarios.ts";
import { openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const MIB = 1024 * KIB, BAT = 2 * MIB;
/** Their BAT entries stand in different sectors of one page of the log, or in another page. */
const FIRST = [0, 70, 300], SECOND = [1, 140, 700];

/** An image of a disk of 1 GiB with three blocks. */
function made(): Uint8Array {
  const file = new MemoryStorage();
  void run(createVhdx(file, { size: 1024 * MIB, blockSize: MIB, stateZero: false }));
  const disk = openNow(file, undefined, { format: "vhdx" });
  for (const block of FIRST) void disk.write(block * MIB + 100, new Uint8Array(5000).fill(block % 251 + 1));
  void disk.close();
  return file.bytes.slice();
}

/** What a guest finds of a block: the bytes it wrote, or zeros. */
function finds(bytes: Uint8Array, blocks: readonly number[]): (number | undefined)[] {
  const disk = openNow(new MemoryStorage(bytes), undefined, { format: "vhdx", readOnly: true }), some = new Uint8Array(5000);
  return blocks.map((block) => {
    void disk.read(block * MIB + 100, some);
    return some.every((byte) => byte === some[0]) ? some[0] : undefined;
  });
}

/** Pages of the BAT as any flush may have left them: the log makes them whole. */
function sessionScenario(): Scenario {
  const before = made(), pages = [0, 1].map(() => new Set<string>());
  const note = (bytes: Uint8Array): void => { for (const [i, page] of pages.entries()) page.add(Buffer.from(batAfterReplay(bytes).subarray(i * 4096, i * 4096 + 4096)).toString("latin1")); };
  note(before);
  return taskScenario("a VHDX is written", () => before.slice(), function* (file) {
    const disk = yield* openDisk(file, { format: "vhdx" });
    for (const some of [SECOND.slice(0, 2), SECOND.slice(2)]) {
      for (const block of some) yield wait(() => disk.write(block * MIB + 100, new Uint8Array(5000).fill(block % 251 + 1)));
      yield wait(() => disk.flush());
      note((file as MemoryStorage).bytes);
    }
    yield wait(() => disk.close());
  }, (bytes, ended) => {
    const broken = brokenVhdx(bytes);
    if (broken !== undefined) return broken;
    const bat = batAfterReplay(bytes), torn = pages.findIndex((page, i) => !page.has(Buffer.from(bat.subarray(i * 4096, i * 4096 + 4096)).toString("latin1")));
    if (torn >= 0) return `page ${torn} of the BAT was never written so`;
    if (ended && namesLog(bytes)) return "closed, and a header still names a log";
    const old = finds(bytes, FIRST), fresh = finds(bytes, SECOND);
    if (FIRST.some((block, i) => old[i] !== block % 251 + 1)) return `old blocks read ${old.join()}`;
    if (SECOND.some((block, i) => fresh[i] !== block % 251 + 1 && (ended || fresh[i] !== 0))) return `new blocks read ${fresh.join()}`;
    return undefined;
  });
}

function namesLog(bytes: Uint8Array): boolean {
  return [64 * KIB, 128 * KIB].some((at) => bytes.subarray(at + 48, at + 64).some((byte) => byte !== 0));
}

/** A log that is replayed: while the headers name it, or its changes are in their place. */
function replayScenario(): Scenario {
  const file = new MemoryStorage(made()), disk = openNow(file, undefined, { format: "vhdx" });
  for (const block of SECOND) void disk.write(block * MIB + 100, new Uint8Array(5000).fill(block % 251 + 1));
  const bat = file.bytes.slice(BAT, BAT + 8192);
  void disk.flush();
  file.bytes.set(bat, BAT);
  const before = file.bytes.slice();
  return taskScenario("a VHDX is repaired", () => before.slice(), (into) => checkVhdx(into, { repair: "all" }), (bytes, ended) => {
    const found = finds(bytes, [...FIRST, ...SECOND]);
    if (found.some((byte, i) => byte !== [...FIRST, ...SECOND][i]! % 251 + 1)) return `blocks read ${found.join()}`;
    return ended && namesLog(bytes) ? "repaired, and a header still names a log" : brokenVhdx(bytes);
  });
}

export const VHDX: readonly Scenario[] = [
  replayScenario(), sessionScenario(),
  ...[false, true].map((fixed) => creation(`a new ${fixed ? "fixed" : "dynamic"} VHDX`, "vhdx", 2 * MIB, (file: Storage) => createVhdx(file, { size: 2 * MIB, blockSize: MIB, fixed }), isVhdx, brokenVhdx)),
];
