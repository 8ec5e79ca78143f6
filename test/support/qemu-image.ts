import { readFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import type { Gate } from "../../disk/gate.ts";
import { open, type OpenOptions } from "../../disk/open.ts";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { expectBytes } from "./bytes.ts";
import { anyBlocks, anyRange, ModelDisk } from "./model.ts";
import type { Random } from "./random.ts";
import { runTool, tryTool } from "./tools.ts";

/** Every image has its own file: one that a failed test left open is locked. */
let images = 0;

/** An image file on disk, worked on by QEMU's tools and by us in turn. */
export class QemuImage {
  readonly path: string;

  constructor(readonly folder: string, name?: string, readonly format = "qcow2") {
    this.path = join(folder, name ?? `image${++images}.${format}`);
  }

  /** Where an external data file is put: `@` in the options. */
  get dataPath(): string {
    return `${this.path}.data`;
  }

  /** `options` as for `-o`. */
  create(size: string | number, options: string, extra: readonly string[] = []): void {
    runTool("qemu-img", ["create", "-q", "-f", this.format, ...(options === "" ? [] : ["-o", options.replaceAll("@", this.dataPath)]), ...extra, this.path, String(size)]);
  }

  io(...commands: string[]): void {
    if (commands.length > 0) runTool("qemu-io", ["-f", this.format, "-d", "unmap", ...commands.flatMap((command) => ["-c", command]), this.path]);
  }

  /** Random changes by QEMU: as qemu-io commands. */
  scribble(random: Random, count: number, size: number, largest = 300_000): void {
    const commands = Array.from({ length: count }, () => {
      const { offset, length } = anyRange(random, size, largest), kind = random.float();
      if (kind < 0.6) return `write -q -P ${1 + random.int(254)} ${offset} ${length}`;
      if (kind < 0.75) return `write -q -z ${offset} ${length}`;
      if (kind < 0.85) return `write -q -z -u ${offset} ${length}`;
      return `discard -q ${offset} ${length}`;
    });
    this.io(...commands);
  }

  /** Random compressed writes by QEMU, of a block each. It fails at more, and at blocks that have space of their own: those stay. */
  packBlocks(random: Random, count: number, size: number): void {
    const { "cluster-size": block } = JSON.parse(runTool("qemu-img", ["info", "--output=json", this.path])) as { "cluster-size": number };
    for (let i = 0; i < count; i++) {
      const at = random.int(Math.ceil(size / block)) * block, command = `write -q -c -P ${1 + random.int(254)} ${at} ${Math.min(block, size - at)}`;
      const { status, stdout, stderr } = tryTool("qemu-io", ["-f", this.format, "-c", command, this.path]);
      if (status !== 0) expect(stdout + stderr).toMatch(/write failed: Input\/output error/);
    }
  }

  /** What QEMU reads, of the active disk or of a snapshot. */
  contents(snapshot?: string): Uint8Array {
    const raw = join(this.folder, "contents.raw");
    runTool("qemu-img", ["convert", "-f", this.format, "-O", "raw", ...(snapshot === undefined ? [] : ["-l", snapshot]), this.path, raw]);
    return new Uint8Array(readFileSync(raw));
  }

  /** What qemu-img tells of it, as JSON. */
  info(): string {
    return runTool("qemu-img", ["info", "--output=json", this.path]);
  }

  /** QEMU's verdict: nothing wrong, no leaks, and exactly these bytes. */
  expectSound(contents?: Uint8Array): void {
    expectSoundImage(this.path, this.format);
    if (contents === undefined) return;
    writeFileSync(join(this.folder, "model.raw"), contents);
    runTool("qemu-img", ["compare", "-f", this.format, "-F", "raw", this.path, join(this.folder, "model.raw")]);
  }

  /** Opened by us, with the backing files that lie beside it. */
  async open(options: OpenOptions = {}): Promise<Disk> {
    const gate: Gate = { open: (name, _from, readOnly) => FileStorage.open(resolve(this.folder, name), { mode: readOnly === false ? "write" : "read" }) };
    const storage = FileStorage.open(this.path, { mode: options.readOnly === true ? "read" : "write" });
    try {
      return await open(storage, { format: this.format, gate, ...options });
    } catch (error) {
      storage.close();
      throw error;
    }
  }

  async bytes(options: OpenOptions = {}): Promise<Uint8Array> {
    const disk = await this.open({ readOnly: true, ...options }), bytes = new Uint8Array(disk.size);
    await disk.read(0, bytes);
    await disk.close();
    return bytes;
  }
}

/** QEMU's check has nothing to complain about, where it has one for the format (63: it has none). */
export function expectSoundImage(path: string, format: string): void {
  const { status, stdout, stderr } = tryTool("qemu-img", ["check", "-f", format, path]);
  expect([0, 63], `qemu-img check: ${stdout}${stderr}`).toContain(status);
}

/** Random changes by us; answers what the disk then holds. */
export async function scribbled(random: Random, disk: Disk, initial: Uint8Array, count: number, largest = 300_000): Promise<Uint8Array> {
  const model = new ModelDisk(disk, initial);
  for (let i = 0; i < count; i++) {
    const { offset, length } = anyRange(random, model.bytes.length, largest), kind = random.float();
    if (disk.packs && random.chance(0.2)) {
      const blocks = anyBlocks(random, disk, largest / 3);
      await model.writePacked(blocks.offset, random.text(blocks.length));
    }
    if (kind < 0.6) await model.write(offset, random.bytes(length));
    else if (kind < 0.8) await model.zero(offset, length, random.chance(0.4));
    else if (kind < 0.95) await model.discard(offset, length);
    else await disk.flush();
    await model.compare(offset, length);
  }
  await model.compare();
  return model.bytes;
}

/** QEMU and we take turns on one image; each must find what the other left, and QEMU's check nothing to complain about. */
export async function takeTurns(random: Random, image: QemuImage, size: number, steps: number): Promise<void> {
  for (let turn = 0; turn < 3; turn++) {
    image.scribble(random, steps, size);
    const before = image.contents();
    expectBytes(await image.bytes(), before, "what we read of QEMU's image");
    const disk = await image.open({ tableCache: random.pick([1, 2 ** 20]) });
    expect(disk.size).toBe(before.length);
    const after = await scribbled(random, disk, before, steps);
    await disk.close();
    image.expectSound(after);
  }
  expectBytes(await image.bytes(), image.contents(), "what we read in the end");
}

/** QEMU writes 64 KiB at each place, in GiB; we find them with a cache of a few slices, and write as much 1.25 GiB on; QEMU finds both. */
export async function expectFarApart(image: QemuImage, gibs: readonly number[]): Promise<void> {
  const GIB = 2 ** 30, places = gibs.map((at) => at * GIB);
  image.io(...places.map((at, i) => `write -q -P ${i + 1} ${at} 64k`));
  const disk = await image.open({ tableCache: 1 }), some = new Uint8Array(2 ** 16);
  for (const [i, at] of places.entries()) {
    await disk.read(at, some);
    expect(new Set(some)).toEqual(new Set([i + 1]));
    await disk.write(at + 5 * GIB / 4, some.fill(i + 101));
  }
  await disk.close();
  image.io(...places.flatMap((at, i) => [`read -q -P ${i + 101} ${at + 5 * GIB / 4} 64k`, `read -q -P ${i + 1} ${at} 64k`]));
}
