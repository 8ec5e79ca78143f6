import { defineConfig } from "vitest/config";

export default defineConfig({
  root: "web",
  test: {
    root: ".",
    include: ["test/**/*.test.ts"],
    globalSetup: ["test/support/setup.ts"],
    reporters: ["default", "./test/support/reporter.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
  },
});
