import { DiskError } from "../../errors.ts";
import type { CreateValues, Creation } from "../creation.ts";
import { checkVmdkOptions, createVmdk, type VmdkCreateOptions } from "./create.ts";

export const vmdkCreation: Creation = {
  options: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "adapter_type", type: "string", help: "Virtual adapter type, can be one of ide (default), lsilogic, buslogic or legacyESX" },
    { name: "backing_file", type: "string", help: "File name of a base image" },
    { name: "backing_fmt", type: "string", help: "Must be 'vmdk' if present" },
    { name: "compat6", type: "boolean", help: "VMDK version 6 image", initial: "off" },
    { name: "hwversion", type: "string", help: "VMDK hardware version", initial: "undefined" },
    { name: "toolsversion", type: "string", help: "VMware guest tools version" },
    { name: "subformat", type: "string", help: "VMDK flat extent format, can be one of {monolithicSparse (default) | monolithicFlat | twoGbMaxExtentSparse | twoGbMaxExtentFlat | streamOptimized} " },
    { name: "zeroed_grain", type: "boolean", help: "Enable efficient zero writes using the zeroed-grain GTE feature" },
  ],
  plan(values) {
    const options = toOptions(values);
    checkVmdkOptions(options);
    return (into, files) => createVmdk(into, options, files);
  },
};

function toOptions(values: CreateValues): VmdkCreateOptions {
  const refuse = (what: string): never => { throw new DiskError("invalid-argument", what, { format: "vmdk", operation: "create" }); };
  const text = (name: string): string | undefined => (values[name] === undefined ? undefined : String(values[name]));
  const hardware = text("hwversion") === "undefined" ? undefined : text("hwversion"), compat6 = values["compat6"] === true;
  if (text("backing_fmt") !== undefined && text("backing_fmt") !== "vmdk") refuse("backing_file must be a vmdk image");
  if (compat6 && hardware !== undefined) refuse("compat6 cannot be enabled with hwversion set");
  return {
    size: Number(values["size"]), backingFile: text("backing_file"), zeroedGrain: values["zeroed_grain"] === true, toolsVersion: text("toolsversion"),
    hardwareVersion: compat6 ? "6" : hardware,
    // As they were typed: what none of them is is refused by name.
    subformat: text("subformat") as VmdkCreateOptions["subformat"], adapterType: text("adapter_type") as VmdkCreateOptions["adapterType"],
  };
}
