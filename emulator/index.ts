/** The machine: v86 with real disks. See README.md. */
export { Machine, type MachineEvents } from "./machine.ts";
export type { BootDevice, Bus, Bytes, DriveConfig, MachineConfig } from "./machine-config.ts";
export { type DriveShape, readStateHeader, type StateHeader } from "./machine-state.ts";
export type { DriveFailure, DriveOperation, DriveStatistics, FailurePolicy, FailureVerdict } from "./drive.ts";
export type { ScreenMode } from "./screen.ts";
export type { Pixels, ScreenCanvas } from "./screen-surface.ts";
export { V86_VERSION } from "./v86-internals.ts";
