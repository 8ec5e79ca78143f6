import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { FileStorage } from "../../disk/storage/file.node.ts";
import { expectBytes } from "../support/bytes.ts";
import { tempFolder } from "../support/temp.ts";

// What FileStorage does where koffi is not installed.
vi.mock("../../disk/storage/libc.node.ts", async (original) => ({ ...(await original<object>()), libc: () => undefined }));

const path = join(tempFolder(), "file");

test("without koffi: zero writes zeros in pieces, discard changes nothing, all is data, nothing is locked", () => {
  const file = FileStorage.open(path, { mode: "create" });
  const bytes = new Uint8Array((3 << 20) + 5).fill(7);
  file.write(0, bytes);
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
