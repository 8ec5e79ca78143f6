import type { Verb } from "../../disk/tools/verb.ts";
export const boot: Verb = { usage: "", about: "", examples: [["a","b"]], options: [], run: () => 1 };
