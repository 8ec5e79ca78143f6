import { spawnSync } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { FORMATS, formatNamed } from "../../disk/formats/registry.ts";
import type { Gate } from "../../disk/gate.ts";
import { open, probed } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run, type Task } from "../../disk/task.ts";
import { buildCli } from "../support/built-cli.ts";
import { damaged, HostileStorage, makeSeeds, type Hostile, type Seed } from "../support/hostile-seeds.ts";
import { type Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";

const KIB = 1024, MIB = 1024 * KIB, LONG = process.env["LONG"] !== undefined, TIMEOUT = 3_600_000;
/** Damaged images of each seed that are looked at in this process; and of each format, by the command. */
const HERE = LONG ? 8000 : 50, COMMANDS = LONG ? 200 : 3;
/** What one image may take: seconds of the processor, and bytes. */
const SECONDS = 2, MEMORY = 200 * MIB;
/** No table or packed cluster that is read at once is larger. */
const LARGEST_READ = 128 * MIB;

const folder = tempFolder();
let seeds: readonly Seed[] = [];

beforeAll(async () => {
  const home = process.cwd();
  process.chdir(folder);
  seeds = await makeSeeds();
  process.chdir(home);
});

/** Whether it went well; it may fail only with a `DiskError`. */
async function attempt(what: () => unknown): Promise<boolean> {
  try {
    await what();
    return true;
  } catch (error) {
    if (error instanceof DiskError) return false;
    throw error;
  }
}

/** All that a listing or a boot would do first: probe it, tell of it, open it, read here and there. Answers whether it could be read. */
async function look(random: Random, hostile: Hostile, { format, beside }: Seed): Promise<boolean> {
  const gate: Gate = { open: (name) => new MemoryStorage(beside?.get(name) ?? new Uint8Array(64 * KIB).fill(5), name) };
  const storage = new HostileStorage(hostile, `hostile.${format}`);
  // Its steps name no format, and so no generator's type.
  const tell = (): Task<unknown> => formatNamed(format).info(storage, gate);
  await attempt(() => run(probed(storage)));
  await attempt(() => run(tell()));
  const read = await attempt(async () => {
    const disk = await open(storage, { format, readOnly: true, gate, trustProbe: true }), into = new Uint8Array(64 * KIB);
    for (const at of [0, Math.max(0, disk.size - into.length), random.int(Math.max(1, disk.size)), random.int(Math.max(1, disk.size))]) await disk.read(at, into.subarray(0, 1 + random.int(into.length)));
    await disk.close();
  });
  expect(storage.largest).toBeLessThanOrEqual(LARGEST_READ);
  return read;
}

const peak = (): number => process.resourceUsage().maxRSS * KIB;
const seconds = (): number => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };

/** At its end the command tells what it took. Not its maxRSS, in which Linux counts what the process was before: a copy of this one. */
const METER = `data:text/javascript,import{readFileSync}from"node:fs";process.on("exit",()=>{const{user,system}=process.cpuUsage(),[,peak]=/VmHWM:\\s*(\\d+)/.exec(readFileSync("/proc/self/status","utf8"));process.stderr.write("\\nTOOK "+peak+" "+(user+system))})`;

interface Took { readonly status: number | null; readonly stderr: string; readonly memory: number; readonly seconds: number }

function command(cli: string, args: readonly string[]): Took {
  const { status, stderr } = spawnSync(process.execPath, ["--import", METER, cli, ...args], { encoding: "utf8", timeout: 60_000 });
  const [said = "", took = ""] = stderr.split("\nTOOK "), [kib = NaN, micros = NaN] = took.split(" ").map(Number);
  return { status, stderr: said, memory: kib * KIB, seconds: micros / 1e6 };
}

test("there are seeds of every format", () => {
  expect([...new Set(seeds.map(({ format }) => format))].sort()).toEqual(FORMATS.map(({ name }) => name).sort());
});

describe.each(FORMATS.map(({ name }) => name))("hostile images of %s", (format) => {
  seeded("end in an answer or a DiskError, in little time and memory", async (random) => {
    const before = peak(), ours = seeds.filter((one) => one.format === format);
    let read = 0;
    for (const seed of ours) {
      const { name, bytes } = seed;
      expect(await look(random, { bytes, size: bytes.length }, seed), `${name}, undamaged`).toBe(true);
      for (let round = 0; round < HERE; round++) {
        const hostile = damaged(random, bytes), began = seconds();
        try {
          if (await look(random, hostile, seed)) read++;
        } catch (error) {
          writeFileSync(join(tmpdir(), "hostile.img"), hostile.bytes);
          if (error instanceof Error) error.message += `\n(${name}, round ${round}, a file of ${hostile.size} bytes: see ${join(tmpdir(), "hostile.img")})`;
          throw error;
        }
        expect(seconds() - began, `seconds for ${name}, round ${round}`).toBeLessThan(SECONDS);
      }
    }
    // Some damage is noticed, but in a raw disk.
    expect(read === ours.length * HERE).toBe(format === "raw");
    expect(peak() - before).toBeLessThan(MEMORY);
  }, TIMEOUT);
});

test("found here: a VMDK with its descriptor beyond every offset", () => {
  const bytes = new Uint8Array(seeds.find(({ name }) => name === "vmdk ")?.bytes ?? []);
  new DataView(bytes.buffer).setBigUint64(28, (1n << 52n) + 8n, true);
  expect(() => run(formatNamed("vmdk").info(new HostileStorage({ bytes, size: bytes.length }, "hostile")))).toThrow(DiskError);
});

describe("disk86 info of hostile images", () => {
  let cli = "";
  beforeAll(async () => { cli = await buildCli(); });

  describe.each(FORMATS.map(({ name }) => name))("%s", (format) => {
    seeded("ends at once, in little memory, with an answer or one line that says why not", (random) => {
      const path = join(folder, `hostile.${format}`);
      for (let round = 0; round < COMMANDS; round++) {
        const { name, bytes } = random.pick(seeds.filter((one) => one.format === format)), { bytes: hurt, size } = damaged(random, bytes);
        writeFileSync(path, hurt);
        truncateSync(path, size);
        const took = command(cli, ["info", ...random.pick([["-f", format], [], ["--backing-chain"]]), "--output=json", path]);
        expect(took.status === 0 || took.status === 1, `${name}: ${took.stderr}`).toBe(true);
        expect(took.stderr, `what is said of ${name}`).toMatch(took.status === 0 ? /^$/ : /^disk86: [^\n]+\n$/);
        expect(took.stderr).not.toContain("internal error");
        expect(took.memory, `bytes for ${name}`).toBeLessThan(MEMORY);
        expect(took.seconds, `seconds for ${name}`).toBeLessThan(SECONDS);
      }
    }, TIMEOUT);
  });
});
