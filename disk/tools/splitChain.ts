import { realpathSync } from "node:fs";
import { Disk } from "../disk.ts";
import { fullName, isHttp, isPlainName, nodeGate, resolveName } from "../gate.node.ts";
import type { NamedImage } from "../gate.ts";
import type { BackingReference, Image } from "../image.ts";
import { openDisk, type OpenOptions } from "../open.ts";
import { call, close, type Task } from "../task.ts";
import type { AccessOptions, ImageFile } from "./images.ts";
import { CommandError } from "./verb.ts";

/** An overlay with those below it, but without the base; and the base, with all it stands on. Top and base are open for writing. */
export interface SplitChain { readonly overlay: Disk; readonly base: Disk }

/** Opens the chain of `top` in two parts. `base`: how the user names the lower one; else it is what `top` stands on. A failure closes all. */
export function* openSplit(top: ImageFile, base: string | undefined, access: AccessOptions): Task<SplitChain> {
  const gate = nodeGate(access), images: Image[] = [];
  let below: Disk | undefined;
  let next: NamedImage = { ...top, format: top.format.name };
  try {
    for (let found = false; !found;) {
      const { chain: [image] } = yield* openNamed(next, { readOnly: images.length > 0, gate, backing: false });
      images.at(-1)?.checkBacking?.(image);
      images.push(image);
      const { backing, storage } = image, choice = next.backing;
      if (choice === false || (choice === undefined && backing === undefined)) throw new CommandError(base === undefined ? "Image does not have a backing file" : `Did not find '${base}' in the backing chain of '${top.title}'`);
      found = base === undefined || (backing !== undefined && isNamed(base, backing, storage.name));
      const readOnly = !found;
      next = yield* call(() => (choice === undefined ? gate.image(backing?.file ?? "", storage, backing?.format, readOnly) : choice(backing, readOnly)));
    }
    below = yield* openNamed(next, { readOnly: false, gate, backing: next.backing });
    images.at(-1)?.checkBacking?.(below.chain[0]);
    return { overlay: new Disk(images as [Image, ...Image[]]), base: below };
  } catch (error) {
    const opened = below;
    if (opened !== undefined) yield* call(() => opened.close());
    if (images.length === 0) yield close(top.storage);
    for (const image of images) yield* image.close();
    throw error;
  }
}

function* openNamed({ storage, format, secret }: NamedImage, options: OpenOptions): Task<Disk> {
  try {
    return yield* openDisk(storage, { ...options, format, secret, trustProbe: true });
  } catch (error) {
    yield close(storage);
    throw error;
  }
}

/** Whether `given` means the file that the image `from` names: as it stands there, or another path to it. */
function isNamed(given: string, { file }: BackingReference, from: string): boolean {
  const wanted = pathOf(file, from);
  return given === file || (wanted !== undefined && (pathOf(given, from) === wanted || pathOf(given, "") === wanted));
}

function pathOf(name: string, from: string): string | undefined {
  const full = fullName(name, from);
  if (!isPlainName(full) || isHttp(full)) return full;
  try {
    return realpathSync(resolveName(full, ""));
  } catch {
    return undefined; // there is no such file: it is not the one
  }
}
