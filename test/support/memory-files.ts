import { basename, dirname, join } from "node:path";
import type { NewFiles } from "../../disk/formats/creation.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";

/** The files of an image in memory, by their base names: as where it is made, and as the gate through which it is opened. */
export class MemoryFiles implements NewFiles {
  readonly all = new Map<string, MemoryStorage>();

  /** `shown`: a file as the image is to see it when it opens it. */
  constructor(readonly name: string, readonly shown: (file: MemoryStorage) => Storage = (file) => file) {}

  create(name: string): MemoryStorage {
    const file = new MemoryStorage(undefined, join(dirname(this.name), basename(name)));
    this.all.set(basename(name), file);
    return file;
  }

  /** An image's own file, or its base. */
  add(file: MemoryStorage): void {
    this.all.set(basename(file.name), file);
  }

  open(name: string): Storage {
    const file = this.all.get(basename(name));
    if (file === undefined) throw new Error(`no file '${name}'`);
    return this.shown(file);
  }
}
