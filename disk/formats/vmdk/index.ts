import type { Image } from "../../image.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { Format, ImageOptions } from "../format.ts";
import { checkVmdk } from "./check.ts";
import { ContentId } from "./content.ts";
import { vmdkCreation } from "./creation.ts";
import { identify } from "./descriptor.ts";
import { openExtents } from "./extents.ts";
import { MAGIC } from "./header.ts";
import { VmdkImage } from "./image.ts";
import { vmdkInfo } from "./info.ts";
import { backingOf, closeFiles, filesOf, openParts } from "./parts.ts";

export const vmdk: Format = {
  name: "vmdk",
  probe,
  open,
  info: vmdkInfo,
  creation: vmdkCreation,
  check: checkVmdk,
  repairs: false,
};

/** As QEMU: a magic, or a text of comments and then a version; also what begins as VMware's descriptors do. */
function probe(head: Uint8Array): boolean {
  const magic = head.length < 4 ? 0 : new DataView(head.buffer, head.byteOffset).getUint32(0, true);
  if (magic === MAGIC.hosted || magic === MAGIC.cowd) return true;
  return /^(?:# *Disk DescriptorFile\b|(?:#.*\n| *\r?\n)*version=[123]\r?\n)/i.test(new TextDecoder("latin1").decode(head));
}

function* open(file: Storage, { readOnly, gate, tableCache }: ImageOptions): Task<Image> {
  const identity = yield* identify(file), parts = yield* openParts(file, identity, gate, readOnly), files = filesOf(file, parts);
  try {
    const content = identity.descriptor === undefined ? undefined : new ContentId(file, identity.descriptor);
    const extents = yield* openExtents(file, parts, !readOnly, tableCache);
    return new VmdkImage(file, { extents, files, content, backing: backingOf(identity), writable: !readOnly });
  } catch (error) {
    yield* closeFiles(files);
    throw error;
  }
}
