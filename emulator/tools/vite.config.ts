import { chmodSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

/** `npx disk86` in a clone runs the file itself. */
const executable: Plugin = {
  name: "executable",
  writeBundle: ({ dir = "." }) => { chmodSync(join(dir, "disk86.js"), 0o755); },
};

/** The Node build: the command line, the library and the server of `npm start`, into dist/node. Dependencies that are loaded from node_modules stay there. */
export default defineConfig({
  publicDir: false,
  plugins: [executable],
  build: {
    ssr: true,
    target: "node20",
    outDir: "dist/node",
    emptyOutDir: true,
    minify: "oxc",
    rollupOptions: {
      input: { disk86: "emulator/tools/main.ts", start: "web/start.ts", index: "emulator/api.ts", disk: "disk/index.ts", node: "emulator/api.node.ts" },
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "[name].js", chunkFileNames: "[name]-[hash].js", banner: (chunk) => (chunk.name === "disk86" ? "#!/usr/bin/env node" : "") },
    },
  },
  ssr: { target: "node", noExternal: ["pako", "zstddec", "cli-progress", "fastest-levenshtein"] },
});
