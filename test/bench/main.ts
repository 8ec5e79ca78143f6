import { bootBenchmark } from "./boot.ts";
import { bootOne } from "./boot-one.ts";
import { commandBenchmark } from "./commands.ts";
import { convertBenchmark } from "./convert.ts";
import { diskBenchmark } from "./disk.ts";
import { ioBenchmark } from "./io.ts";
import { nbdBenchmark } from "./nbd.ts";

const [what = "all", ...rest] = process.argv.slice(2);

/** `npm run bench [disk|io|convert|commands|nbd|boot] [ROUNDS] [PART OF A ROW'S NAME]`: us and a peer side by side; medians and ratios of one run. */
if (what === "boot-one") await bootOne(rest[0] ?? "", rest[1] ?? "");
else {
  const rounds = Number(rest[0] ?? 7);
  if (what === "all" || what === "disk") await diskBenchmark(rounds);
  if (what === "all" || what === "io") await ioBenchmark(rounds, rest[1]);
  if (what === "all" || what === "convert") await convertBenchmark(rounds, rest[1]);
  if (what === "all" || what === "commands") await commandBenchmark(rounds);
  if (what === "all" || what === "nbd") await nbdBenchmark(rounds);
  if (what === "all" || what === "boot") await bootBenchmark(rounds);
}
