import { defineConfig } from "vitest/config";

/** The tests in which a guest, or a page and its browser, wants the machine for itself. */
const MACHINE = "test/{emulator,guests,browser}/**/*.test.ts";

export default defineConfig({
  root: "web",
  // The names by which others import the library: README's example runs as a test.
  resolve: {
    alias: [
      { find: /^disk86\/node$/, replacement: new URL("emulator/api.node.ts", import.meta.url).pathname },
      { find: /^disk86$/, replacement: new URL("emulator/api.ts", import.meta.url).pathname },
    ],
  },
  // The page works under any path.
  base: "./",
  // What is not there is a 404, not the page: images are asked for by their addresses.
  appType: "mpa",
  worker: { format: "es" },
  build: { outDir: "../dist/page", emptyOutDir: true },
  test: {
    root: ".",
    reporters: ["default", "./test/support/reporter.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
    projects: [
      {
        extends: true,
        test: { name: "disk", include: ["test/**/*.test.ts"], exclude: [MACHINE], globalSetup: ["test/support/setup.ts"], maxWorkers: 2, sequence: { groupOrder: 0 } },
      },
      {
        extends: true,
        test: { name: "machine", include: [MACHINE], globalSetup: ["test/support/setup.ts"], maxWorkers: 1, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
