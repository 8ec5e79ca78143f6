import { createQcow2, type Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import { createQed } from "../../disk/formats/qed/create.ts";
import type { BackingReference } from "../../disk/image.ts";
import { openDisk } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import type { Storage } from "../../disk/storage.ts";
import { run, type Task, wait } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import { inspectQcow2 } from "../support/qcow2-inspect.ts";
import { openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, SIZE = 300 * KIB, BASE = new Random(11).bytes(SIZE);
const BEFORE: BackingReference = { file: "base", format: "raw" };

type Make = (file: Storage, backing: BackingReference | undefined) => Task;
const qcow2 = (options: Partial<Qcow2CreateOptions>): Make => (file, backing) => createQcow2(file, { size: SIZE, ...options, backingFile: backing?.file, backingFormat: backing?.format });
const qed: Make = (file, backing) => createQed(file, { size: SIZE, clusterSize: 4096, tableSize: 1, backingFile: backing?.file, backingFormat: backing?.format });

/** An overlay that holds, here and there, just what its base holds: emptying it changes nothing. */
function overlay(format: string, make: Make, backing: BackingReference | undefined): Uint8Array {
  const file = new MemoryStorage();
  void run(make(file, backing));
  const disk = openNow(file, BASE, { format });
  for (const [from, to] of [[0, 20], [100, 110], [290, 300]] as const) void disk.write(from * KIB, BASE.subarray(from * KIB, to * KIB));
  void disk.close();
  return file.bytes.slice();
}

function* withDisk(file: Storage, format: string, work: (disk: ReturnType<typeof openNow>) => Task<unknown>): Task {
  const disk = yield* openDisk(file, { format, gate: { open: () => new MemoryStorage(BASE, "base") }, trustProbe: true });
  yield* work(disk);
  yield wait(() => disk.close());
}

/** What is wrong with the image itself. */
function broken(format: string, bytes: Uint8Array): string | undefined {
  return format === "qcow2" ? inspectQcow2(bytes).corruptions[0] : undefined;
}

function emptied(name: string, format: string, make: Make): Scenario {
  return taskScenario(`${name} is emptied`, () => overlay(format, make, BEFORE), (file) => withDisk(file, format, (disk) => disk.empty()), (bytes, ended) => {
    const contents = new Uint8Array(SIZE), disk = openNow(new MemoryStorage(bytes), BASE, { format });
    void disk.read(0, contents);
    if (Buffer.compare(contents, BASE) !== 0) return "an overlay that lost what it held";
    const first = disk.chain[0].map(0, 512);
    return ended && first !== undefined && first.kind !== "backing" ? "it is not empty" : broken(format, bytes);
  });
}

function renamed(name: string, format: string, make: Make, from: BackingReference | undefined, to: BackingReference | undefined): Scenario {
  const same = (a: BackingReference | undefined, b: BackingReference | undefined): boolean => a?.file === b?.file && (a?.format === b?.format || a === undefined);
  return taskScenario(`${name} names ${to?.file.slice(0, 5) ?? "no backing file"}, not ${from?.file.slice(0, 5) ?? "none"}${from !== undefined && from.format === undefined ? " of a format unknown" : ""}`, () => overlay(format, make, from), (file) => withDisk(file, format, (disk) => disk.setBacking(to)), (bytes, ended) => {
    const { backing } = openNow(new MemoryStorage(bytes), BASE, { format }).chain[0];
    if (!same(backing, from) && !same(backing, to)) return `it names ${JSON.stringify(backing)}`;
    return ended && !same(backing, to) ? "it names the old one" : broken(format, bytes);
  });
}

const LONG = { file: `long-${"x".repeat(300)}`, format: "raw" }, VERY = { file: `very-${"y".repeat(900)}`, format: "raw" };

export const BACKING: readonly Scenario[] = [
  emptied("qcow2", "qcow2", qcow2({ clusterSize: 512 })), emptied("qcow2 with large clusters", "qcow2", qcow2({ clusterSize: 4096 })), emptied("qcow2, version 2", "qcow2", qcow2({ clusterSize: 1024, version: 2 })), emptied("qed", "qed", qed),
  ...([["qcow2", "qcow2", qcow2({ clusterSize: 4096 })], ["qcow2, version 2", "qcow2", qcow2({ clusterSize: 4096, version: 2 })], ["qed", "qed", qed]] as const).flatMap(([name, format, make]) => [
    renamed(name, format, make, BEFORE, LONG), renamed(name, format, make, LONG, { file: "short", format: "raw" }), renamed(name, format, make, VERY, BEFORE),
    renamed(name, format, make, BEFORE, undefined), renamed(name, format, make, undefined, BEFORE), renamed(name, format, make, { file: "base", format: undefined }, LONG),
  ]),
  ...[undefined, BEFORE].map((from) => renamed("qcow2 with small clusters", "qcow2", qcow2({ clusterSize: 1024 }), from, LONG)),
  renamed("qcow2 with the smallest clusters", "qcow2", qcow2({ clusterSize: 512 }), BEFORE, { file: "another-base", format: "raw" }),
];
