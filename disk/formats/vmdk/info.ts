import { type Gate, NO_GATE } from "../../gate.ts";
import type { Storage } from "../../storage.ts";
import type { Task } from "../../task.ts";
import type { FormatInfo, InfoObject } from "../info.ts";
import { identify, type Identity } from "./descriptor.ts";
import { backingOf, closeFiles, filesOf, openParts, type Part } from "./parts.ts";

/** What QEMU's `info` tells of a VMDK. Without a gate the descriptor alone tells. */
export function* vmdkInfo(file: Storage, gate?: Gate): Task<FormatInfo> {
  const identity = yield* identify(file), backing = backingOf(identity);
  if (gate === undefined && identity.header === undefined) return { size: identity.descriptor?.extents.reduce((sum, { size }) => sum + size, 0) ?? 0, backing };
  const parts = yield* openParts(file, identity, gate ?? NO_GATE, true), files = filesOf(file, parts), last = parts.at(-1);
  yield* closeFiles(files);
  return {
    size: last === undefined ? 0 : last.start + last.length, clusterSize: grainSizeOf(parts), backing, files: files.map(({ name }) => name),
    specific: { type: "vmdk", data: { ...contentIds(identity), "create-type": createType(identity), extents: parts.map(describePart) } },
  };
}

const grainOf = ({ header, seSparse }: Part): number | undefined => (header ?? seSparse)?.grainSize;

/** As QEMU: only where all extents are of one kind. */
function grainSizeOf(parts: readonly Part[]): number | undefined {
  const kinds = new Set(parts.map((part) => `${grainOf(part) ?? "flat"} ${part.header?.compressed === true}`)), [first] = parts;
  return kinds.size === 1 && first !== undefined ? grainOf(first) : undefined;
}

/** As QEMU: what an image in one file is, its header tells. */
function createType({ descriptor, header }: Identity): string {
  if (header === undefined) return descriptor?.createType ?? "";
  if (header.kind === "cowd") return "vmfsSparse";
  return header.compressed ? "streamOptimized" : "monolithicSparse";
}

function contentIds({ descriptor }: Identity): InfoObject {
  return descriptor === undefined ? {} : { cid: descriptor.cid, "parent-cid": descriptor.parentCid };
}

function describePart(part: Part): InfoObject {
  const { type, storage, length, header } = part, grainSize = grainOf(part);
  return {
    filename: storage.name, format: type, "virtual-size": length,
    ...(grainSize === undefined ? {} : { "cluster-size": grainSize }), ...(header?.compressed === true ? { compressed: true } : {}),
  };
}
