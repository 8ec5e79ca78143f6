import { existsSync } from "node:fs";
import { parseArgs } from "node:util";
import sirv from "sirv";
import { build, type Plugin, preview } from "vite";
import { complain, runProgram } from "../disk/tools/program.ts";
import { CommandError, type Output } from "../disk/tools/verb.ts";
import { boot } from "../emulator/tools/boot.ts";
import { builtGuest, guestImage } from "../emulator/tools/guest-images.ts";
import { GUESTS, PACKAGE } from "../emulator/tools/paths.ts";
import { bios, guests, tiny } from "../guests/catalog.ts";

const USAGE = `usage: npm start [-- options]

  npm start                  serves the page on this machine and prints its address; builds the tiny guest first if it is missing
  npm start -- --port 8000   at this port, or the next that is free
  npm start -- --terminal    boots the tiny guest in this terminal; its changes are kept in guests/out/tiny.overlay.qcow2
`;

const PORT = 8086;
const output: Output = { out: (text) => { process.stdout.write(text); }, error: (text) => { process.stderr.write(text); }, watched: process.stderr.isTTY };

async function start(): Promise<number | undefined> {
  const { values } = parseArgs({ options: { terminal: { type: "boolean" }, port: { type: "string" }, help: { type: "boolean", short: "h" } } });
  if (values.help === true) {
    output.out(USAGE);
    return 0;
  }
  if (values.terminal === true) return await runProgram({ version: "", verbs: [{ name: "boot", summary: "", load: async () => boot }] }, ["boot", "tiny", "--overlay", `${GUESTS}tiny.overlay.qcow2`], output);
  const port = Number(values.port ?? PORT);
  if (!(Number.isInteger(port) && port > 0 && port < 65536)) throw new CommandError(`no port has the number ${values.port}`);
  await buildGuest();
  await servePage(port);
  return undefined;
}

/** The page is of use without a guest of ours, too. */
async function buildGuest(): Promise<void> {
  try {
    await builtGuest(tiny, output);
  } catch (error) {
    complain(error, output);
    output.error("disk86: the page is served nevertheless: drop an image of your own on it; it needs a BIOS in guests/out/bios, see guests/README.md\n");
  }
}

/** Builds the page as it would be published, and serves it on this machine only. */
async function servePage(port: number): Promise<void> {
  const config = { configFile: `${PACKAGE}vite.config.ts`, root: `${PACKAGE}web`, logLevel: "error" } as const;
  await build(config);
  const server = await preview({ ...config, preview: { host: "127.0.0.1", port, strictPort: false }, plugins: [guestServer()] });
  output.out(`disk86: the page is at ${server.resolvedUrls?.local[0]} (Ctrl-C ends it)\n`);
}

/** `/guests/FILE`: what is in guests/out, with ranges; `/guests/catalog.json`: the names of the guests that are there. */
function guestServer(): Plugin {
  const files = sirv(GUESTS, { dev: true, etag: true });
  return {
    name: "disk86-guests",
    configurePreviewServer({ middlewares }) {
      middlewares.use("/guests", (request, response, next) => {
        if (request.url?.split("?")[0] !== "/catalog.json") return files(request, response, next);
        response.setHeader("Content-Type", "application/json");
        response.setHeader("Cache-Control", "no-store");
        response.end(JSON.stringify(builtGuests()));
      });
    },
  };
}

function builtGuests(): string[] {
  const hasBios = Object.values(bios).every((file) => existsSync(`${GUESTS}${file}`));
  return hasBios ? guests.filter((guest) => existsSync(guestImage(guest))).map(({ name }) => name) : [];
}

try {
  const status = await start();
  if (status !== undefined) process.stdout.write("", () => process.exit(status));
} catch (error) {
  process.exitCode = complain(error instanceof TypeError ? new CommandError(`${error.message}\n${USAGE}`) : error, output);
}
