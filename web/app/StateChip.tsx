import type { JSX } from "preact";
import type { SaveState } from "../model/machine.ts";
import { ago } from "../model/words.ts";
import { useClock } from "./observable.ts";

interface Chip { readonly tone: "good" | "busy" | "warn"; readonly text: string; readonly title: string }

const ONLY_HERE = "The changes are in this browser only, which may clear them when space runs short. Download them to be safe.";

function chipOf(save: SaveState | undefined, persisted: boolean): Chip | undefined {
  switch (save?.state) {
    case undefined: return undefined;
    case "temporary": return { tone: "warn", text: "Temporary", title: "Nothing is kept: the changes are gone when this page is left. Download them to keep them." };
    case "saving": return { tone: "busy", text: "Saving…", title: "The guest has written what is not durable yet." };
    case "saved": return persisted
      ? { tone: "good", text: `Saved ${ago(save.at)}`, title: "Everything the guest wrote to its disk is durable in this browser." }
      : { tone: "good", text: `Saved ${ago(save.at)} · only in this browser`, title: ONLY_HERE };
  }
}

/** How safe the changes of the machine that is on are. */
export function StateChip({ save, persisted }: { readonly save: SaveState | undefined; readonly persisted: boolean }): JSX.Element | null {
  useClock(3000);
  const chip = chipOf(save, persisted);
  if (!chip) return null;
  return <span class={`chip ${chip.tone}`} title={chip.title} data-state={save?.state}>{chip.text}</span>;
}

/** The same for a machine that is off. */
export function KeptChip({ openElsewhere, persisted }: { readonly openElsewhere: boolean; readonly persisted: boolean }): JSX.Element {
  if (openElsewhere) return <span class="chip warn" data-state="elsewhere">Read-only (open elsewhere)</span>;
  return persisted ? <span class="chip good" data-state="kept">Saved</span> : <span class="chip good" data-state="kept" title={ONLY_HERE}>Only in this browser</span>;
}
