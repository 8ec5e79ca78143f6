import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

/** The README's first TypeScript example, word for word but for the overlay's place. */
function example(overlay: string): string {
  const code = /```ts\n([^]*?)```/.exec(readFileSync("README.md", "utf8"))?.[1];
  if (code === undefined) throw new Error("README.md has no example");
  expect(code).toContain('"/tmp/mine.qcow2"');
  return code.replaceAll('"/tmp/mine.qcow2"', JSON.stringify(overlay));
}

test.skipIf(!requireTool("qemu-img"))("the README's library example boots a guest and keeps what it wrote", async () => {
  const overlay = join(tempFolder(), "mine.qcow2"), folder = join(process.cwd(), "test/output/example");
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "example.ts"), example(overlay));
  await import(join(folder, "example.ts"));
  rmSync(folder, { recursive: true });
  runTool("qemu-img", ["check", overlay]);
  expect(Number(JSON.parse(runTool("qemu-img", ["info", "--output=json", overlay]))["actual-size"])).toBeGreaterThan(256 * 1024);
}, 180_000);
