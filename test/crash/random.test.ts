import { expect } from "vitest";
import type { Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import { DelayedStorage } from "../../disk/filters/delayed.ts";
import { open } from "../../disk/open.ts";
import { all, type Pending } from "../../disk/storage.ts";
import { anyRange } from "../support/model.ts";
import { PowerCutStorage } from "../support/powercut.ts";
import { type Random, seeded } from "../support/random.ts";
import { Guest } from "./guest.ts";
import { guestScenario, made, openNow, verdict } from "./scenario.ts";
import { crashStates } from "./states.ts";

const KIB = 1024, ROUNDS = process.env["LONG"] ? 25 : 4, TIMEOUT = 900_000;

function anyOptions(random: Random): Qcow2CreateOptions {
  const version = random.pick([2, 3, 3, 3] as const), extendedL2 = version === 3 && random.chance(0.25);
  return {
    size: random.pick([33, 70, 130]) * KIB + random.pick([0, 512]), clusterSize: extendedL2 ? 16 * KIB : random.pick([512, 512, 1024, 4096]), version, extendedL2,
    ...(version === 3 ? { refcountBits: random.pick([1, 8, 16, 64]) } : {}), backingFile: "base", backingFormat: "raw",
  };
}

seeded("a guest that does anything loses nothing that it flushed to a power cut", (random) => {
  for (let round = 0; round < ROUNDS; round++) {
    const backing = random.bytes(random.pick([0, 20 * KIB + 100, 300 * KIB])), options = anyOptions(random);
    const scenario = guestScenario({
      name: "random", backing, options: { tableCache: random.pick([1, 2 ** 20]) },
      image: () => made(options, (disk) => { void disk.write(1000, random.bytes(random.int(30 * KIB))); }, backing),
      work: (guest, reopen) => {
        for (let step = 0; step < 25; step++) anything(random, guest, reopen, step);
      },
    });
    const { cut, judge } = scenario.start();
    for (const state of crashStates(cut)) {
      const complaint = judge(state);
      if (complaint !== undefined) throw new Error(`${complaint} (${state.text}; ${JSON.stringify(options)})`);
    }
    expect(cut.log.length).toBeGreaterThan(10);
  }
}, TIMEOUT);

function anything(random: Random, guest: Guest, reopen: () => void, step: number): void {
  const { offset, length } = anyRange(random, guest.disk.size, 8 * KIB), kind = random.float();
  if (kind < 0.35) void guest.fill(offset, length, step + 1);
  else if (kind < 0.45) void guest.pack(offset - (offset % guest.disk.packSize), step + 1);
  else if (kind < 0.6) void guest.zero(offset, length, random.chance(0.5));
  else if (kind < 0.7) guest.discard(offset, length);
  else if (kind < 0.92) void guest.flush();
  else if (kind < 0.95) reopen();
  else void guest.truncate((10 + random.int(140)) * KIB + random.pick([0, 512]));
}

seeded("so does one whose requests are all in flight at once", async (random) => {
  for (let round = 0; round < ROUNDS; round++) {
    const backing = random.bytes(60 * KIB), options = { ...anyOptions(random), size: 96 * KIB };
    const { bytes } = made(options, undefined, backing), contents = new Uint8Array(96 * KIB);
    contents.set(backing);
    const cut = new PowerCutStorage(bytes), slow = new DelayedStorage(cut, { delays: () => random.chance(0.7) });
    const disk = await open(slow, { format: "qcow2", gate: { open: () => new PowerCutStorage(backing, "base") } });
    const guest = new Guest(cut, disk, contents, backing), pending: Pending[] = [];
    for (let step = 0; step < 30; step++) {
      const { offset, length } = anyRange(random, disk.size, 6 * KIB), kind = random.float();
      if (kind < 0.45) pending.push(guest.fill(offset, length, step + 1));
      else if (kind < 0.6) pending.push(guest.pack(offset - (offset % disk.packSize), step + 1));
      else if (kind < 0.75) pending.push(guest.zero(offset, length, random.chance(0.5)));
      else if (kind < 0.85) pending.push(guest.flush());
      else for (let hops = random.int(40); hops > 0; hops--) await Promise.resolve();
    }
    await all(pending);
    await guest.flush();
    await disk.close();
    for (const state of crashStates(cut)) {
      const complaint = verdict(state, guest, "qcow2", backing);
      if (complaint !== undefined) throw new Error(`${complaint} (${state.text}; ${JSON.stringify(options)})`);
    }
    const end = new Uint8Array(disk.size);
    void openNow(cut, backing, { format: "qcow2" }).read(0, end);
    expect(guest.complaint(end, cut.log.length)).toBeUndefined();
  }
}, TIMEOUT);
