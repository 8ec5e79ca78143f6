import { setCrypto } from "../crypto/provider.ts";
import { deflateNode } from "./deflate.node.ts";
import { setDeflate } from "./deflate.ts";
import { inflateNode, inflateOnThread } from "./inflate.node.ts";
import { setInflate } from "./inflate.ts";

/** Chooses Node's own codecs, which are much faster than those that are always there. */
export function useNodeCodecs(): void {
  setInflate(inflateNode, inflateOnThread);
  setDeflate(deflateNode);
  setCrypto(async () => (await import("../crypto/provider.node.ts")).nodeCrypto);
}
