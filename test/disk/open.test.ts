import { describe, expect, test } from "vitest";
import type { Disk } from "../../disk/disk.ts";
import { DiskError } from "../../disk/errors.ts";
import { Filter } from "../../disk/filters/filter.ts";
import { createQcow2, type Qcow2CreateOptions } from "../../disk/formats/qcow2/create.ts";
import type { Gate } from "../../disk/gate.ts";
import { MAX_DEPTH, open, type OpenOptions } from "../../disk/open.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { run } from "../../disk/task.ts";

/** A storage that knows whether it was closed. */
class Watched extends Filter {
  closes = 0;

  override close(): void {
    this.closes++;
    void super.close();
  }
}

/** Files by name, and a gate to them; `opened` are those that were handed out, in order. */
class Shelf implements Gate {
  readonly files = new Map<string, MemoryStorage>();
  readonly opened: Watched[] = [];

  raw(name: string, bytes: Uint8Array): void {
    this.files.set(name, new MemoryStorage(bytes, name));
  }

  qcow2(name: string, options: Partial<Qcow2CreateOptions> = {}): MemoryStorage {
    const file = new MemoryStorage(undefined, name);
    void run(createQcow2(file, { size: 4096, clusterSize: 512, ...options }));
    this.files.set(name, file);
    return file;
  }

  open(name: string): Watched {
    const file = this.files.get(name);
    if (file === undefined) throw new DiskError("not-found", "there is no such file", { path: name });
    const watched = new Watched(file);
    this.opened.push(watched);
    return watched;
  }

  disk(name: string, options: OpenOptions = {}): Disk {
    const disk = open(this.files.get(name) ?? new MemoryStorage(), { gate: this, ...options });
    if (disk instanceof Promise) throw new Error("expected a synchronous open");
    return disk;
  }
}

const first = (disk: Disk): number => {
  const bytes = new Uint8Array(1);
  void disk.read(0, bytes);
  return bytes[0] ?? 0;
};

const kind = (kind: string): object => expect.objectContaining({ name: "DiskError", kind });

describe("open", () => {
  test("probes the top image by its magic, and takes what has none for raw", () => {
    const shelf = new Shelf();
    shelf.qcow2("image");
    shelf.raw("plain", new Uint8Array(1024).fill(7));
    shelf.raw("short", Uint8Array.of(0x51, 0x46, 0x49));
    expect(shelf.disk("image").chain[0].format).toBe("qcow2");
    expect(shelf.disk("plain").chain[0].format).toBe("raw");
    expect(shelf.disk("short").size).toBe(512);
    expect(shelf.disk("image", { format: "raw" }).chain[0].format).toBe("raw");
    expect(() => shelf.disk("plain", { format: "qcow2" })).toThrow(kind("invalid-format"));
    expect(() => shelf.disk("plain", { format: "vhd5" })).toThrow(/unknown format 'vhd5'; known are .*qcow2.*raw/);
  });

  test("a recorded raw base is never probed: whatever a guest wrote there is its data", () => {
    const shelf = new Shelf(), trap = shelf.qcow2("trap", { backingFile: "/etc/passwd", backingFormat: "raw" });
    shelf.qcow2("top", { backingFile: "trap", backingFormat: "raw", size: trap.size });
    const disk = shelf.disk("top"), now = new Uint8Array(trap.size);
    void disk.read(0, now);
    expect(disk.chain.map((image) => image.format)).toEqual(["qcow2", "raw"]);
    expect(Buffer.compare(now, trap.bytes)).toBe(0);
    expect(shelf.opened.map((file) => file.name)).toEqual(["trap"]);
  });

  test("an unrecorded base may be probed, but the files that it names are not opened unless the caller trusts it", () => {
    const shelf = new Shelf();
    shelf.raw("secret", new Uint8Array(4096).fill(9));
    shelf.qcow2("middle", { backingFile: "secret", backingFormat: "raw" });
    shelf.qcow2("top", { backingFile: "middle" });
    expect(() => shelf.disk("top")).toThrow(kind("unsupported"));
    expect(shelf.opened.map(({ name, closes }) => [name, closes])).toEqual([["middle", 1]]);
    expect(first(shelf.disk("top", { trustProbe: true }))).toBe(9);
  });

  test("without a gate no other file is reached; with `backing: false` none is needed", () => {
    const shelf = new Shelf();
    shelf.raw("base", new Uint8Array(4096).fill(5));
    shelf.qcow2("top", { backingFile: "base", backingFormat: "raw" });
    expect(() => shelf.disk("top", { gate: undefined })).toThrow(kind("not-found"));
    expect(first(shelf.disk("top", { backing: false }))).toBe(0);
    expect(shelf.opened).toEqual([]);
    expect(first(shelf.disk("top"))).toBe(5);
  });

  test("a chain that goes in a circle is refused, and everything opened is closed again, but not the caller's file", () => {
    const shelf = new Shelf();
    for (const [name, base] of [["a", "b"], ["b", "c"], ["c", "a"]] as const) shelf.qcow2(name, { backingFile: base, backingFormat: "qcow2" });
    const top = new Watched(shelf.files.get("a") ?? new MemoryStorage());
    expect(() => open(top, { gate: shelf })).toThrow(/circle/);
    expect(shelf.opened.map(({ name, closes }) => [name, closes])).toEqual([["b", 1], ["c", 1], ["a", 1]]);
    expect(top.closes).toBe(0);
    shelf.qcow2("self", { backingFile: "self", backingFormat: "qcow2" });
    expect(() => shelf.disk("self")).toThrow(kind("corrupt"));
  });

  test(`a chain has at most ${MAX_DEPTH} images`, () => {
    const shelf = new Shelf();
    shelf.raw("0", new Uint8Array(4096).fill(3));
    for (let i = 1; i <= MAX_DEPTH; i++) shelf.qcow2(String(i), { backingFile: String(i - 1), backingFormat: i === 1 ? "raw" : "qcow2" });
    expect(first(shelf.disk(String(MAX_DEPTH - 1)))).toBe(3);
    shelf.opened.length = 0;
    expect(() => shelf.disk(String(MAX_DEPTH))).toThrow(kind("unsupported"));
    expect(shelf.opened.every(({ closes }) => closes === 1)).toBe(true);
  });

  test("a base that cannot be opened is named in the error, and nothing stays open", () => {
    const shelf = new Shelf();
    shelf.raw("broken", new Uint8Array(4096).fill(1));
    shelf.qcow2("middle", { backingFile: "broken", backingFormat: "qcow2" });
    shelf.qcow2("top", { backingFile: "middle", backingFormat: "qcow2" });
    expect(() => shelf.disk("top")).toThrow(/broken: not a qcow2 image/);
    expect(shelf.opened.map(({ name, closes }) => [name, closes])).toEqual([["middle", 1], ["broken", 1]]);
    shelf.qcow2("lost", { backingFile: "nowhere", backingFormat: "raw" });
    expect(() => shelf.disk("lost")).toThrow(/nowhere: there is no such file/);
  });

  test("backing files are only read, and closed with the disk", () => {
    const shelf = new Shelf();
    shelf.raw("base", new Uint8Array(4096).fill(5));
    shelf.qcow2("top", { backingFile: "base", backingFormat: "raw" });
    const disk = shelf.disk("top");
    expect(disk.chain.map((image) => image.readOnly)).toEqual([false, true]);
    void disk.write(0, Uint8Array.of(1));
    void disk.close();
    expect(shelf.opened.map(({ closes }) => closes)).toEqual([1]);
    expect(shelf.files.get("base")?.bytes.every((byte) => byte === 5)).toBe(true);
  });

  test("a disk opened read-only writes nothing, not even a repair", () => {
    const shelf = new Shelf(), file = shelf.qcow2("image");
    file.bytes[79] = 1;
    file.bytes[95] = 1;
    const before = file.bytes.slice(), disk = shelf.disk("image", { readOnly: true });
    for (const change of [() => disk.write(0, Uint8Array.of(1)), () => disk.zero(0, 1), () => disk.discard(0, 512), () => disk.truncate(512)]) {
      expect(change).toThrow(kind("read-only"));
    }
    expect(disk.flush()).toBeUndefined();
    void disk.close();
    expect(Buffer.compare(file.bytes, before)).toBe(0);
  });
});
