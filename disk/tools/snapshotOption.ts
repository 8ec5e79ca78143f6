import type { SnapshotChoice } from "../formats/format.ts";
import { splitOptions } from "./options.ts";
import { CommandError } from "./verb.ts";

/** What `-l SNAPSHOT` names: an ID or a name as it stands, or `snapshot.id=ID,snapshot.name=NAME`. */
export function parseSnapshot(text: string): SnapshotChoice {
  if (!text.startsWith("snapshot.")) return text;
  const choice: { id?: string; name?: string } = {};
  for (const [parameter, value] of splitOptions(text)) {
    if (parameter === "snapshot.id") choice.id = value;
    else if (parameter === "snapshot.name") choice.name = value;
    else throw new CommandError(`Invalid parameter '${parameter}'\nFailed in parsing snapshot param '${text}'`);
  }
  return choice;
}
