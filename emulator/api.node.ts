/** What only Node has of the library: files as disks, and v86's wasm. */
export * from "../disk/index.node.ts";
export { nodeWasm } from "./node.ts";
