export { isComposite, qemuOrder, toJson } from "../names/json.ts";
