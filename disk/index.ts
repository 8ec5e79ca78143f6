/** Disk images as disks, for browsers and Node. See README.md. */
export { Disk, type DiskOptions } from "./disk.ts";
export { DiskError, type DiskErrorContext, type DiskErrorKind } from "./errors.ts";
export type { CheckOptions, CheckResult, Finding } from "./formats/check.ts";
export type { CreateOption, CreateValues, Creation, NewFiles } from "./formats/creation.ts";
export type { Format, ImageOptions, SnapshotChoice } from "./formats/format.ts";
export type { FormatInfo, InfoObject, InfoValue, SnapshotInfo } from "./formats/info.ts";
export { createQcow2, type Qcow2CreateOptions } from "./formats/qcow2/create.ts";
export { FORMATS, formatNamed, probe } from "./formats/registry.ts";
export { type Gate, NO_GATE } from "./gate.ts";
export type { Extent, Image } from "./image.ts";
export { open, openDisk, type OpenOptions } from "./open.ts";
export { all, type Pending, type Storage } from "./storage.ts";
export { HttpStorage, type HttpOptions } from "./storage/http.ts";
export { MemoryStorage } from "./storage/memory.ts";
export { PagedStorage } from "./storage/pages.ts";
export { run, type Step, type Task } from "./task.ts";
