import { defineConfig } from "vitest/config";

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
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/setup.ts"],
    reporters: ["default", "./test/support/reporter.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
  },
});
