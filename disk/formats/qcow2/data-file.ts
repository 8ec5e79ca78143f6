import { DiskError } from "../../errors.ts";
import type { Gate } from "../../gate.ts";
import type { Storage } from "../../storage.ts";
import { call, close, type Task } from "../../task.ts";
import { INCOMPATIBLE } from "./features.ts";
import type { Qcow2Header } from "./header.ts";

/** Opens the external data file that the header names, if it has one. The caller closes it. */
export function* openDataFile(file: Storage, { incompatible, dataFile }: Qcow2Header, gate: Gate, readOnly: boolean): Task<Storage | undefined> {
  if ((incompatible & INCOMPATIBLE.externalData) === 0n) return undefined;
  if (dataFile === undefined) throw new DiskError("unsupported", "the image keeps its data in another file and does not say in which; name it with qemu-img amend -o data_file=", { path: file.name, format: "qcow2" });
  const data = yield* call(() => opened(file, dataFile, gate, readOnly));
  if (data.name !== file.name) return data;
  yield close(data);
  throw new DiskError("corrupt", "the image names itself as its data file", { path: file.name, format: "qcow2" });
}

function opened(file: Storage, name: string, gate: Gate, readOnly: boolean): Storage | Promise<Storage> {
  const explained = (error: unknown): unknown => {
    if (!(error instanceof DiskError) || error.kind !== "not-found") return error;
    return new DiskError("not-found", `${error.what}: the image keeps its data there. A relative name is sought from where the image is (QEMU seeks it from the current folder)`, error.context, error);
  };
  try {
    const data = gate.open(name, file, readOnly);
    return data instanceof Promise ? data.catch((error: unknown) => { throw explained(error); }) : data;
  } catch (error) {
    throw explained(error);
  }
}
