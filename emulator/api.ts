/** The whole library: disks, and the machine that boots from them. */
export * from "../disk/index.ts";
export * from "./index.ts";
