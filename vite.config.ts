import { defineConfig } from "vitest/config";

export default defineConfig({
  root: "web",
  // The page works under any path.
  base: "./",
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
