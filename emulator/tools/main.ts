import { complain, programName, runProgram } from "../../disk/tools/program.ts";
import type { Output, VerbEntry } from "../../disk/tools/verb.ts";
import { DISK_VERBS } from "../../disk/tools/verbs.ts";
import { version } from "../../package.json";

const BOOT: VerbEntry = { name: "boot", qemu: "none", summary: "boot an image in v86, with its serial console in this terminal", load: async () => (await import("./boot.ts")).boot };

const name = programName(process.argv[1] ?? "");

const output: Output = {
  name,
  out: (text) => { process.stdout.write(text); },
  error: (text) => { process.stderr.write(text); },
  watched: process.stderr.isTTY,
};

// A reader that has seen enough (`disk86 map disk | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") complain(error, output, name);
  process.exit(error.code === "EPIPE" ? 0 : 1);
});

// It asks how far a verb is (progress.ts); left alone it would start a debugger.
process.on("SIGUSR1", () => {});

process.on("uncaughtException", (error) => process.exit(complain(error, output, name)));

const status = await runProgram({ name, version, verbs: [BOOT, ...DISK_VERBS] }, process.argv.slice(2), output);
// Connections and timers that nobody needs any more keep no command waiting; what was written is out first.
process.stdout.write("", () => process.exit(status));
