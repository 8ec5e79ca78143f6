import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { nodeGate } from "../../disk/gate.node.ts";
import { openNode, optionsOfName } from "../../disk/names/nodes.node.ts";
import { optionsFromPairs } from "../../disk/names/options.ts";
import { tempFolder } from "../support/temp.ts";
import { type Random, seeded } from "../support/random.ts";

const folder = tempFolder();
const FILE = join(folder, "disk.raw");

const NAMES = [
  `json:{"driver":"raw","offset":512,"size":"64k","file":{"driver":"file","filename":"${FILE}"}}`, `json:{'driver':'qcow2','file':{'filename':'${FILE}'},'backing':null}`, `json:{"file.filename":"${FILE}","driver":"raw","file":{"locking":"off"}}`,
  `json:{"driver":"raw","file":{"driver":"raw","file":{"driver":"null-co","size":4096}}}`, `driver=raw,file.filename=${FILE},offset=512`, `driver=qcow2,file.driver=raw,file.offset=0,file.file.filename=${FILE},backing.driver=raw`, FILE, `file:${FILE}`, "null-co://", `driver=file,filename=${FILE},locking=off`,
];
const PIECES = ["{", "}", "[", "]", "'", '"', "\\", "\\u0000", "\0", ",", ",,", "=", ":", ".", "json:", "file.", "backing.", "driver", "offset", "size", "null", "true", "1e999", "-1", "9007199254740993", "99999999999999999999", "0x", "__proto__", "constructor", "toString", "filename", "é", "\ud800", "/", "//"];

function mutated(random: Random, name: string): string {
  let text = name;
  for (let i = 1 + random.int(3); i > 0; i--) {
    const at = random.int(text.length + 1), piece = PIECES[random.int(PIECES.length)] ?? "";
    text = text.slice(0, at) + (random.chance(0.7) ? piece : "") + text.slice(at + random.int(4));
  }
  return text;
}

/** What came of a name: it was opened, or refused in our words. */
async function outcome(name: string, pairs: boolean): Promise<string> {
  const gate = nodeGate({ lock: false, depth: 1 });
  try {
    const { storage } = await openNode(pairs ? optionsFromPairs(name, "file") : optionsOfName(name), { lock: false, gate });
    await storage.close();
    return "opened";
  } catch (error) {
    return error instanceof DiskError ? "refused" : `${JSON.stringify(name)}: ${String(error)}`;
  }
}

seeded("whatever a name says, it is opened or refused", async (random) => {
  writeFileSync(FILE, Buffer.alloc(128 << 10, 1));
  for (let i = 0; i < 1500; i++) {
    const name = mutated(random, NAMES[random.int(NAMES.length)] ?? "");
    // Nothing goes out to the network.
    if (/https?:|nbd|ftp/.test(name)) continue;
    expect(await outcome(name, !name.startsWith("json:"))).toMatch(/^(opened|refused)$/);
    expect(await outcome(name, false)).toMatch(/^(opened|refused)$/);
  }
});

test("names that are right are opened", async () => {
  writeFileSync(FILE, Buffer.alloc(128 << 10, 1));
  expect([await outcome(NAMES[0] ?? "", false), await outcome(NAMES[4] ?? "", true), await outcome(FILE, false)]).toEqual(["opened", "opened", "opened"]);
});

test.each([`json:${'{"file":'.repeat(5000)}1${"}".repeat(5000)}`, `json:{"driver":"raw","file":${'{"driver":"raw","file":'.repeat(90)}{"driver":"file","filename":"${FILE}"}${"}".repeat(90)}}`, `json:{"filename":"${"x".repeat(1 << 20)}"}`])("a name too long or too deep is refused (%#)", async (name) => {
  expect(await outcome(name, false)).toMatch(/^(opened|refused)$/);
});
