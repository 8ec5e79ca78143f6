import { transferHandlers } from "comlink";
import { fromFailure, toFailure, type Failure } from "../model/failure.ts";

interface Thrown { readonly value: unknown }
const original = transferHandlers.get("throw");

/** Lets a `DiskError` arrive as one: comlink alone keeps only the message. Imported on both sides. */
transferHandlers.set("throw", {
  canHandle: (value: unknown): value is Thrown => original?.canHandle(value) ?? false,
  serialize: ({ value }: Thrown): [Failure, Transferable[]] => [toFailure(value), []],
  deserialize: (failure: Failure): never => { throw fromFailure(failure); },
});
