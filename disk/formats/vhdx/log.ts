import { encodeText } from "../../bytes/text.ts";
import { randomUuid } from "../../bytes/uuid.ts";
import type { BlockMap } from "../../metadata/blockMap.ts";
import type { Table } from "../../metadata/table.ts";
import type { Tables } from "../../metadata/blockImage.ts";
import type { Storage } from "../../storage.ts";
import { flush, write, type Task } from "../../task.ts";
import { NO_GUID, updateHeaders, type Header } from "./headers.ts";
import { HEADER_TAKES, PER_SECTOR, SECTOR } from "./replay.ts";
import { DescriptorFields, LogEntryFields, MIB, sealed } from "./structures.ts";

/** What one entry may hold: with its one sector of descriptors it takes less than half of the smallest log. */
const MOST = PER_SECTOR - HEADER_TAKES;

/**
 * The log of an image that is open for writing. Each entry stands alone: what it says has reached its place, durably,
 * before the next one is written; they take turns in the two halves of the log, so that one is always whole.
 */
export class Log {
  #sequence = 0;

  private constructor(readonly file: Storage, private header: Header, readonly guid: Uint8Array) {}

  /** Begins a session: an entry that says nothing, and then headers with its GUID and new ones for what will be written. */
  static *begin(file: Storage, header: Header): Task<Log> {
    const guid = randomUuid(true), log = new Log(file, header, guid);
    yield* log.#write([]);
    yield flush(file, "an empty log before the header that names it");
    log.header = yield* updateHeaders(file, header, { logGuid: guid, fileWriteGuid: randomUuid(true), dataWriteGuid: randomUuid(true) });
    return log;
  }

  /** Writes what changed in `blocks` in full pages, first to the log. */
  *writeBack(blocks: BlockMap): Task {
    const slices = blocks.dirtySlices;
    for (let from = 0; from < slices.length; from += MOST) {
      const some = slices.slice(from, from + MOST);
      if (from > 0) yield flush(this.file, "the block map");
      yield* this.#write(some);
      yield flush(this.file, "the log before the block map");
      for (const slice of some) yield write(this.file, slice.at, slice.bytes);
    }
  }

  /** Ends the session: everything is in its place, and the log means nothing any more. */
  *end(): Task {
    yield* updateHeaders(this.file, this.header, { logGuid: NO_GUID });
  }

  *#write(pages: readonly Table[]): Task {
    const { logOffset, logLength } = this.header, sequence = ++this.#sequence, length = SECTOR * (1 + pages.length);
    const tail = sequence % 2 === 1 ? 0 : Math.floor(logLength / 2 / SECTOR) * SECTOR, entry = new Uint8Array(length);
    const size = Math.floor(this.file.size / MIB) * MIB;
    entry.set(LogEntryFields.format({
      signature: encodeText("loge"), checksum: 0, length, tail, sequence, descriptors: pages.length, reserved: 0, guid: this.guid, flushedSize: size, lastSize: Math.ceil(this.file.size / MIB) * MIB,
    }));
    for (const [i, { at, bytes }] of pages.entries()) {
      entry.set(DescriptorFields.format({ signature: encodeText("desc"), word: bytes.subarray(SECTOR - 4), lead: bytes.subarray(0, 8), offset: at, sequence }), LogEntryFields.size + i * DescriptorFields.size);
      entry.set(dataSector(bytes, sequence), SECTOR * (1 + i));
    }
    yield write(this.file, logOffset + tail, sealed(entry));
  }
}

/** 2.3.1.4 "Data Sector": the page, with marks where the descriptor has its bytes. */
function dataSector(page: Uint8Array, sequence: number): Uint8Array {
  const sector = page.slice(), view = new DataView(sector.buffer);
  sector.set(encodeText("data"));
  view.setUint32(4, Math.floor(sequence / 2 ** 32), true);
  view.setUint32(SECTOR - 4, sequence % 2 ** 32, true);
  return sector;
}

/** A block map whose changes go through the log. */
export function logged(blocks: BlockMap, log: Log): Tables {
  return {
    get dirty() { return blocks.dirty; },
    get full() { return blocks.full; },
    writeBack: () => log.writeBack(blocks),
    clean: () => { blocks.clean(); },
  };
}
