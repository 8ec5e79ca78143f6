import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

/** A fresh folder, removed after the suite that asked for it. Call it at the top of a test file or a `describe`. */
export function tempFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "disk86-"));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}
