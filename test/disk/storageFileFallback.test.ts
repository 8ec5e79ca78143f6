import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { expectBytes } from "../support/bytes.ts";
import { tempFolder } from "../support/temp.ts";

// What FileStorage does where koffi is not installed.
vi.mock("../../disk/storage/libc.node.ts", async (original) => ({ ...(await original<object>()), libc: () => undefined }));

const sync = vi.hoisted(() => ({ fails: false }));
vi.mock("node:fs", async (original) => {
  const fs = await original<typeof import("node:fs")>();
  const fdatasyncSync = (fd: number): void => {
    if (sync.fails) throw Object.assign(new Error("EIO: i/o error, fdatasync"), { code: "EIO" });
    fs.fdatasyncSync(fd);
  };
  return { ...fs, fdatasyncSync };
});

const path = join(tempFolder(), "file");

test("without koffi: zero writes zeros in pieces, discard changes nothing, all is data, nothing is locked", () => {
  const file = FileStorage.open(path, { mode: "create" });
  const bytes = new Uint8Array((3 << 20) + 5).fill(7);
  void file.write(0, bytes);
  file.discard(0, 4096);
  file.zero(4096, 2_500_000);
  file.zero(3 << 20, 1 << 20);
  expect(file.size).toBe(bytes.length);
  expect(file.dataAt(0)).toEqual({ data: true, length: bytes.length });
  file.flush();
  const second = FileStorage.open(path, { mode: "write" });
  second.close();
  file.close();
  expectBytes(readFileSync(path), bytes.fill(0, 4096, 4096 + 2_500_000).fill(0, 3 << 20));
  expect(statSync(path).blocks * 512).toBeGreaterThanOrEqual(bytes.length);
});

test("after a flush that failed none succeeds any more: the system may have dropped the data", () => {
  const file = FileStorage.open(`${path}.sync`, { mode: "create" });
  void file.write(0, new Uint8Array(10));
  file.flush();
  void file.write(0, new Uint8Array(10));
  sync.fails = true;
  const failure = expect.objectContaining({ kind: "io", message: expect.stringMatching(/the device failed/) });
  expect(() => file.flush("why")).toThrow(failure);
  sync.fails = false;
  expect(() => file.flush()).toThrow(failure);
  file.close();
});
