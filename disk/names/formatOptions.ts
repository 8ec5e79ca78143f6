import { DiskError } from "../errors.ts";
import type { Format } from "../formats/format.ts";
import type { Secrets } from "./access.ts";
import type { NodeOptions } from "./options.ts";

const ON_OFF_UNMAP = ["on", "off", "unmap"];
const SIZES: Readonly<Record<string, readonly string[]>> = {
  qcow2: ["cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size", "cache-clean-interval"],
  parallels: ["prealloc-size"],
};
const TEXTS: Readonly<Record<string, readonly string[]>> = {
  qcow2: ["overlap-check", "overlap-check.template"], parallels: ["prealloc-mode"], vpc: ["force_size_calc"],
};
const SWITCHES: Readonly<Record<string, readonly string[]>> = {
  qcow2: [
    "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other",
    ...["main-header", "active-l1", "active-l2", "refcount-table", "refcount-block", "snapshot-table", "inactive-l1", "inactive-l2", "bitmap-directory"].map((name) => `overlap-check.${name}`),
  ],
};

/** What every node may be told. `undefined`: it was not. */
export interface CommonOptions { readonly readOnly: boolean | undefined; readonly forceShare: boolean | undefined }

/** Takes what every node may be told; how caches behave is accepted, and makes no difference. */
export function takeCommon(options: NodeOptions): CommonOptions {
  for (const name of ["auto-read-only", "copy-on-read", "cache.direct", "cache.no-flush"]) options.boolean(name);
  options.string("node-name");
  options.word("discard", ["ignore", "off", "unmap", "on"]);
  options.word("detect-zeroes", ON_OFF_UNMAP);
  return { readOnly: options.boolean("read-only"), forceShare: options.boolean("force-share") };
}

/** Takes the options of a format's driver, and answers the secret that they name. What tunes QEMU's own caches is accepted, and makes no difference. */
export function takeFormatOptions(options: NodeOptions, { name }: Format, secrets: Secrets | undefined): { readonly id: string; readonly secret: Uint8Array } | undefined {
  for (const size of SIZES[name] ?? []) options.size(size);
  for (const text of TEXTS[name] ?? []) options.string(text);
  for (const one of SWITCHES[name] ?? []) options.boolean(one);
  if (name === "qcow2" && (options.has("data-file") || options.hasChild("data-file"))) throw new DiskError("unsupported", "the option 'data-file' is not supported: the image names its data file itself");
  if (name === "luks") return secretNamed(options.string("key-secret"), secrets);
  if (name !== "qcow2" && name !== "qcow") return undefined;
  options.word("encrypt.format", ["aes", "luks"]);
  return secretNamed(options.string("encrypt.key-secret"), secrets);
}

function secretNamed(id: string | undefined, secrets: Secrets | undefined): { readonly id: string; readonly secret: Uint8Array } | undefined {
  if (id === undefined) return undefined;
  const secret = secrets?.get(id);
  if (secret === undefined) throw new DiskError("not-found", `No secret with id '${id}': give it with --object secret,id=${id},file=FILE`);
  return { id, secret };
}
