import { defineConfig } from "vite";

/** Benchmarks run as they are shipped: bundled, not through a test runner's module loader. */
export default defineConfig({
  build: { ssr: "test/bench/main.ts", outDir: "dist/bench", target: "node20", minify: false, emptyOutDir: true },
});
