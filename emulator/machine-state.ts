import { DiskError } from "../disk/errors.ts";
import type { MachineShape } from "./machine-config.ts";
import { V86_VERSION } from "./v86-internals.ts";

/** A saved machine: these eight bytes, the length of the header, the header as JSON, v86's own state. */
const MAGIC = "D86STATE";
const PREFIX = MAGIC.length + 4;
const FORMAT = 1;

/** A drive as the guest's RAM knows it. */
export interface DriveShape {
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  /** Of the disk layer, if the configuration names it. */
  readonly identity: string | null;
}

export interface StateHeader extends MachineShape {
  readonly format: number;
  readonly v86: string;
  readonly drives: readonly DriveShape[];
  /** The size of the CD in the drive. */
  readonly cdrom: number | null;
}

export function stateHeader(shape: MachineShape, drives: readonly DriveShape[], cdrom: number | null): StateHeader {
  return { format: FORMAT, v86: V86_VERSION, ...shape, drives, cdrom };
}

export function packState(header: StateHeader, state: ArrayBuffer): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(PREFIX + json.length + state.byteLength);
  bytes.set(new TextEncoder().encode(MAGIC));
  new DataView(bytes.buffer).setUint32(MAGIC.length, json.length, true);
  bytes.set(json, PREFIX);
  bytes.set(new Uint8Array(state), PREFIX + json.length);
  return bytes;
}

/** What a saved state belongs to, without restoring it. */
export function readStateHeader(bytes: Uint8Array): StateHeader {
  return split(bytes).header;
}

/** v86's part of a state that fits the machine described by `here`; refused otherwise, with every difference named. */
export function unpackState(bytes: Uint8Array, here: StateHeader): ArrayBuffer {
  const { header, state } = split(bytes);
  const differences = compare(header, here);
  if (differences.length > 0) {
    throw new DiskError("invalid-argument", `this state belongs to another machine: ${differences.join("; ")}`);
  }
  return new Uint8Array(state).buffer;
}

function split(bytes: Uint8Array): { header: StateHeader; state: Uint8Array } {
  const magic = new TextDecoder("latin1").decode(bytes.subarray(0, MAGIC.length));
  if (magic !== MAGIC || bytes.length < PREFIX) throw new DiskError("invalid-format", "not a saved machine state of disk86");
  const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(MAGIC.length, true);
  if (PREFIX + length > bytes.length) throw new DiskError("corrupt", "the machine state is cut off");
  try {
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(PREFIX, PREFIX + length))) as StateHeader;
    return { header, state: bytes.subarray(PREFIX + length) };
  } catch (error) {
    throw new DiskError("corrupt", "the machine state's header is damaged", {}, error);
  }
}

function compare(saved: StateHeader, here: StateHeader): string[] {
  const differences: string[] = [];
  const check = (what: string, then: unknown, now: unknown): void => {
    if (then !== now) differences.push(`${what} was ${String(then)}, here it is ${String(now)}`);
  };
  check("state format", saved.format, here.format);
  check("v86", saved.v86, here.v86);
  check("memory (MiB)", saved.memory, here.memory);
  check("video memory (MiB)", saved.videoMemory, here.videoMemory);
  check("ACPI", saved.acpi, here.acpi);
  check("network", saved.network, here.network);
  check("size of the CD", saved.cdrom, here.cdrom);
  check("drives", saved.drives.map(({ name }) => name).join(" "), here.drives.map(({ name }) => name).join(" "));
  for (const [index, drive] of saved.drives.entries()) {
    const now = here.drives[index];
    if (now?.name !== drive.name) continue;
    check(`${drive.name}: size`, drive.size, now.size);
    check(`${drive.name}: read-only`, drive.readOnly, now.readOnly);
    check(`${drive.name}: disk layer`, drive.identity, now.identity);
  }
  return differences;
}
