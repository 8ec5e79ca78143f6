// npm links the commands of a project's dependencies, not its own: this does, so that `npx disk86` works in a clone.
import { chmodSync, mkdirSync, rmSync, symlinkSync } from "node:fs";

const root = new URL("../../", import.meta.url);

chmodSync(new URL("dist/node/disk86.js", root), 0o755);
if (process.platform !== "win32") {
  const link = new URL("node_modules/.bin/disk86", root);
  mkdirSync(new URL(".", link), { recursive: true });
  rmSync(link, { force: true });
  symlinkSync("../../dist/node/disk86.js", link);
}
