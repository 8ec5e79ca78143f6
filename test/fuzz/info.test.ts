import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import type { Format } from "../../disk/formats/format.ts";
import { FORMATS } from "../../disk/formats/registry.ts";
import { NO_GATE } from "../../disk/gate.ts";
import { open, probed } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";
import { OptionValues } from "../../disk/tools/options.ts";
import { buildCli } from "../support/built-cli.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";

const LONG = process.env["LONG"] !== undefined, MIB = 2 ** 20;
/** Mutations of each format that are looked at in this process, and by the command. */
const HERE = LONG ? 20_000 : 400, COMMANDS = LONG ? 200 : 6;
/** What a look at an image may take, in milliseconds and in bytes. */
const TIME = 2000, MEMORY = 200 * MIB;
const SURPRISES = [0, 1, 2, 9, 0x7f, 0xff, 0x1ff, 0x200, 0xffff, 0x10000, 0x7fff_ffff, 0x8000_0000, 0xffff_fe00, 0xffff_ffff];

/** An image of 8 MiB with some data, as its bytes. Formats that are only read have no seed of ours. */
async function seedOf({ name, creation }: Format): Promise<Uint8Array | undefined> {
  if (creation === undefined) return undefined;
  const values = new OptionValues(creation.options), file = new MemoryStorage(new Uint8Array(0), "seed");
  values.setSize(8 * MIB);
  await run(creation.plan(values.all())(file, { name: "seed", create: (further) => new MemoryStorage(new Uint8Array(0), further), open: (name, from) => NO_GATE.open(name, from) }));
  const disk = await open(file, { format: name });
  for (const at of [0, 3 * MIB + 512, 8 * MIB - 4096]) await disk.write(at, new Uint8Array(4096).fill(0x5a));
  await disk.close();
  return file.bytes.slice();
}

/** A few fields and bytes of the metadata, of which most stand in the first 4 KiB, changed; a third of them cut off somewhere. */
function mutated(random: Random, seed: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(seed), view = new DataView(bytes.buffer);
  for (let count = 1 + random.int(4); count > 0; count--) {
    const reach = random.pick([64, 128, 512, 4096, bytes.length]), at = random.int(Math.min(reach, bytes.length) - 8), value = random.pick(SURPRISES), little = random.chance(0.5);
    switch (random.int(4)) {
      case 0: view.setUint8(at, random.int(256)); break;
      case 1: view.setUint32(at & ~3, value, little); break;
      case 2: view.setBigUint64(at & ~3, (BigInt(random.pick(SURPRISES)) << 32n) | BigInt(value), little); break;
      default: view.setUint16(at & ~1, value & 0xffff, little);
    }
  }
  return random.chance(0.3) ? bytes.slice(0, random.int(bytes.length + 1)) : bytes;
}

/** What `info` does, and what opening does; both end well or in a `DiskError`. */
async function look(file: MemoryStorage, format: Format): Promise<boolean> {
  try {
    await run(probed(file));
    await run(format.info(file));
    await open(file, { format: format.name, readOnly: true, backing: false });
    return true;
  } catch (error) {
    if (error instanceof DiskError) return false;
    throw error;
  }
}

describe("info of hostile images", () => {
  const folder = tempFolder();
  let cli = "";
  beforeAll(async () => { cli = await buildCli(); });

  const seeds = new Map<string, Uint8Array>();
  beforeAll(async () => {
    for (const format of FORMATS) {
      const seed = await seedOf(format);
      if (seed !== undefined) seeds.set(format.name, seed);
    }
  });

  const WITH_SEEDS = FORMATS.filter(({ creation }) => creation !== undefined);

  describe.each(WITH_SEEDS.map((format) => [format.name, format] as const))("%s", (name, format) => {
    seeded("in this process: never long, much, or anything but a DiskError", async (random) => {
      const seed = seeds.get(name) ?? new Uint8Array(0), before = process.resourceUsage().maxRSS;
      let slowest = 0, refused = 0;
      for (let round = 0; round < HERE; round++) {
        const file = new MemoryStorage(mutated(random, seed), `hostile.${name}`), began = performance.now();
        if (!await look(file, format)) refused++;
        slowest = Math.max(slowest, performance.now() - began);
      }
      expect(slowest).toBeLessThan(TIME);
      expect((process.resourceUsage().maxRSS - before) * 1024).toBeLessThan(MEMORY);
      // Raw takes anything; of the others some mutations must be noticed, and some must be harmless.
      expect(refused > 0).toBe(name !== "raw");
      expect(refused).toBeLessThan(HERE);
    }, 600_000);

    seeded("as a command: within 200 MB and 2 s", (random) => {
      const seed = seeds.get(name) ?? new Uint8Array(0);
      for (let round = 0; round < COMMANDS; round++) {
        const path = join(folder, `${name}-${round}`);
        writeFileSync(path, mutated(random, seed));
        const { status, stdout, stderr, milliseconds, peak } = command(cli, path);
        expect(status === 0 || status === 1, `${path}: ${stderr}`).toBe(true);
        expect(stderr).not.toContain("internal error");
        expect(status === 0 ? stdout : stderr).not.toBe("");
        expect(milliseconds).toBeLessThan(TIME);
        expect(peak).toBeLessThan(MEMORY);
      }
    }, 600_000);
  });

  test("every format has a seed", () => {
    expect([...seeds.keys()]).toEqual(WITH_SEEDS.map(({ name }) => name));
  });
});

/** Has a process tell the most memory it took, in KiB, when it ends; `resourceUsage` would tell of the one that it was forked from, too. */
const TELLS_PEAK = `data:text/javascript,import{readFileSync}from"node:fs";process.on("exit",()=>{process.stderr.write("PEAK="+/VmHWM:\\s*(\\d+)/.exec(readFileSync("/proc/self/status","utf8"))[1])})`;

function command(cli: string, path: string) {
  const began = performance.now();
  const { status, stdout, stderr } = spawnSync(process.execPath, ["--import", TELLS_PEAK, cli, "info", "--backing-chain", path], { encoding: "utf8", timeout: 10_000 });
  const [said = "", peak] = stderr.split("PEAK=");
  return { status, stdout, stderr: said, milliseconds: performance.now() - began, peak: Number(peak) * 1024 };
}
