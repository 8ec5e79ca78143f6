import { closeSync, ftruncateSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool, tryTool } from "../support/tools.ts";

/** guests/lib/qcow2.mjs stands in for `qemu-img convert -c` where guests are built; qemu-img says whether it may. */

const WRITER = join(import.meta.dirname, "../../guests/lib/qcow2.mjs");
const CLUSTER = 65536;
const folder = tempFolder();
const raw = join(folder, "disk.raw");
const qcow2 = join(folder, "disk.qcow2");

function convert(into = qcow2): Buffer {
  runTool("node", [WRITER, raw, into]);
  return readFileSync(into);
}

function writeSparse(size: number, pieces: readonly { at: number; bytes: Uint8Array }[]): void {
  const file = openSync(raw, "w");
  ftruncateSync(file, size);
  for (const { at, bytes } of pieces) writeSync(file, bytes, 0, bytes.length, at);
  closeSync(file);
}

/** One cluster of a kind: zeros, noise that does not shrink, text that does, or mostly zeros. */
function cluster(random: Random): Uint8Array {
  const kind = random.int(4);
  if (kind === 0) return new Uint8Array(CLUSTER);
  if (kind === 1) return random.bytes(CLUSTER);
  if (kind === 2) return random.text(CLUSTER);
  const bytes = new Uint8Array(CLUSTER);
  bytes[random.int(CLUSTER)] = 1 + random.int(255);
  return bytes;
}

describe.skipIf(!requireTool("qemu-img"))("the image is what qemu-img would have made of it", () => {
  function expectSameDisk(): void {
    expect(runTool("qemu-img", ["check", "-f", "qcow2", qcow2])).toContain("No errors were found");
    const { status, stdout } = tryTool("qemu-img", ["compare", "-f", "raw", "-F", "qcow2", raw, qcow2]);
    expect({ status, stdout }).toEqual({ status: 0, stdout: "Images are identical.\n" });
  }

  seeded("clusters of all kinds, in any order", (random) => {
    writeFileSync(raw, Buffer.concat(Array.from({ length: 1 + random.int(300) }, () => cluster(random))));
    convert();
    expectSameDisk();
  });

  seeded("a disk that does not end at a cluster border", (random) => {
    writeFileSync(raw, random.text(5 * CLUSTER + 512 * (1 + random.int(127))));
    convert();
    expectSameDisk();
  });

  seeded("several L2 tables, some of them empty", (random) => {
    const size = 2.5 * 2 ** 30;
    const pieces = [0, 512 * 2 ** 20 - CLUSTER, 512 * 2 ** 20, 2 ** 31 + 12345, size - 4096];
    writeSparse(size, pieces.map((at) => ({ at, bytes: random.text(4096) })));
    convert();
    expectSameDisk();
  });

  test("nothing but zeros takes nothing but metadata", () => {
    writeSparse(100 * 2 ** 20, []);
    expect(convert().length).toBe(5 * CLUSTER);
    expectSameDisk();
  });

  test("an empty disk", () => {
    writeFileSync(raw, "");
    convert();
    expect(runTool("qemu-img", ["check", "-f", "qcow2", qcow2])).toContain("No errors were found");
  });
});

test("the same disk gives the same bytes", () => {
  const random = new Random(86);
  writeFileSync(raw, Buffer.concat(Array.from({ length: 200 }, () => cluster(random))));
  expect(convert().equals(convert(join(folder, "again.qcow2")))).toBe(true);
});

test("text shrinks, noise is stored as it is", () => {
  const random = new Random(86);
  writeFileSync(raw, random.bytes(50 * CLUSTER));
  convert();
  expect(statSync(qcow2).size).toBe(55 * CLUSTER);
  writeFileSync(raw, random.text(50 * CLUSTER));
  convert();
  expect(statSync(qcow2).size).toBeLessThan(30 * CLUSTER);
});

test("says how it is used", () => {
  expect(tryTool("node", [WRITER])).toMatchObject({ status: 2, stderr: "usage: node qcow2.mjs RAW QCOW2\n" });
});
