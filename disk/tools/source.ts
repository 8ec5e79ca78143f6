import type { AccessOptions } from "./images.ts";
import { type Call, CommandError } from "./verb.ts";

/** How a call's images are to be opened, for reading: as -U, --image-opts and --object say. */
export async function sourceAccess(call: Call): Promise<AccessOptions> {
  return { lock: !call.has("force-share"), imageOpts: call.has("image-opts"), secrets: await secretsOf(call) };
}

/** Loads what reads the definitions only if there are any. */
async function secretsOf(call: Call): Promise<AccessOptions["secrets"]> {
  const definitions = call.values("object");
  return definitions.length === 0 ? undefined : (await import("./secrets.ts")).readSecrets(definitions);
}

/** `-f`, which --image-opts excludes. */
export function sourceFormat(call: Call, exitCode = 1): string | undefined {
  const format = call.value("format");
  if (format !== undefined && call.has("image-opts")) throw new CommandError("--image-opts and --format are mutually exclusive", exitCode);
  return format;
}
