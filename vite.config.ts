import { defineConfig } from "vitest/config";

export default defineConfig({
  root: "web",
  test: {
    root: ".",
    include: ["test/**/*.test.ts"],
    testTimeout: 60_000,
    hookTimeout: 300_000,
  },
});
