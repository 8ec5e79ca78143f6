import { checkQed } from "../../disk/formats/qed/check.ts";
import { createQed } from "../../disk/formats/qed/create.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { Random } from "../support/generator.ts";
import type { Guest } from "./guest.ts";
import { guestScenario, openNow, type Scenario } from "./scenario.ts";
import { taskScenario } from "./taskScenarios.ts";

const KIB = 1024, CLUSTER = 4096, SIZE = 5 * 1024 * KIB;

function image(backing?: Uint8Array): { bytes: Uint8Array; contents: Uint8Array } {
  const file = new MemoryStorage();
  void run(createQed(file, { size: SIZE, clusterSize: CLUSTER, tableSize: 1, backingFile: backing && "base", backingFormat: backing && "raw" }));
  const disk = openNow(file, backing, { format: "qed" });
  void disk.write(3 * KIB, new Uint8Array(2 * KIB).fill(9));
  const contents = new Uint8Array(SIZE);
  void disk.read(0, contents);
  void disk.close();
  return { bytes: file.bytes.slice(), contents };
}

/** One table covers 2 MiB: the first work is in a table that is there, the later in new ones. */
function work(guest: Guest, reopen: () => void): void {
  void guest.fill(1000, 9000, 1);
  void guest.flush();
  void guest.fill(200, 100, 3);
  void guest.fill(2100 * KIB, 700, 4);
  void guest.zero(16 * KIB, 9 * KIB);
  void guest.flush();
  guest.discard(0, 8 * KIB);
  void guest.fill(2200 * KIB, 5000, 5);
  void guest.flush();
  reopen();
  void guest.fill(1300, 5, 6);
  void guest.fill(4200 * KIB, 20, 7);
  void guest.flush();
  void guest.truncate(2202 * KIB);
  void guest.flush();
  void guest.truncate(4300 * KIB);
  void guest.fill(4299 * KIB, 512, 8);
  void guest.flush();
}

/** Nothing is damaged; and what is amiss at all, down to a cluster that nothing references, is marked. */
function demand(state: Uint8Array): string | undefined {
  const result = run(checkQed(new MemoryStorage(state.slice())));
  if (result instanceof Promise) throw new Error("expected a synchronous check");
  const { corruptions, leaks, findings } = result, marked = ((state[16] ?? 0) & 2) !== 0;
  if (corruptions > 0) return `corrupt: ${findings[0]?.message}`;
  return leaks > 0 && !marked ? `${leaks} leaks, and no need-check mark` : undefined;
}

const creation = taskScenario(
  "a new qed image takes a file's place", () => new Random(5).bytes(20 * KIB),
  (file) => createQed(file, { size: SIZE, clusterSize: CLUSTER, tableSize: 1, backingFile: "base", backingFormat: "raw" }),
  (bytes, ended) => {
    const isImage = bytes.length >= 4 && new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true) === 0x00444551;
    if (!isImage) return ended ? "the image is not there" : undefined;
    const contents = new Uint8Array(SIZE), backing = new Random(6).bytes(SIZE);
    void openNow(new MemoryStorage(bytes), backing).read(0, contents);
    return demand(bytes) ?? (Buffer.compare(contents, backing) === 0 ? undefined : "a new image that does not show its base");
  },
);

/** An image not closed in order, with an entry that points nowhere and clusters that nothing references. */
function damaged(): Uint8Array {
  const bytes = new Uint8Array([...image().bytes, ...new Uint8Array(2 * CLUSTER)]), view = new DataView(bytes.buffer);
  const l2 = Number(view.getBigUint64(Number(view.getBigUint64(40, true)), true));
  view.setBigUint64(l2 + 8 * 100, BigInt(1000 * CLUSTER), true);
  bytes[16] = 2;
  return bytes;
}

const repair = taskScenario("a qed image is repaired", damaged, (file) => checkQed(file, { repair: "all" }), (bytes, ended) => {
  const marked = ((bytes[16] ?? 0) & 2) !== 0;
  if (ended && marked) return "repaired, and marked nevertheless";
  return marked ? undefined : demand(bytes);
});

export const QED: readonly Scenario[] = [
  creation, repair,
  ...[undefined, new Random(8).bytes(50 * KIB + 300), new Random(9).bytes(4500 * KIB)].map((backing) => guestScenario({
    name: `qed above ${backing === undefined ? "nothing" : `a base of ${backing.length} bytes`}`, format: "qed", ...(backing === undefined ? {} : { backing }),
    image: () => image(backing), work, demand,
  })),
];
