import { BufferPool } from "../../disk/nbd/pool.ts";
import { Command, CommandFlag, REQUEST_MAGIC } from "../../disk/nbd/protocol.ts";
import { Session } from "../../disk/nbd/session.ts";
import type { Wire } from "../../disk/nbd/wire.ts";
import { Random } from "../support/generator.ts";
import { PowerCutStorage } from "../support/powercut.ts";
import type { Scenario } from "./scenario.ts";

const KIB = 1024, SIZE = 64 * KIB;
/** "Both sides speak the newest; no padding", and the option that names the export, which has no name. */
const HANDSHAKE = Buffer.from([0, 0, 0, 3, ...Buffer.from("IHAVEOPT"), 0, 0, 0, 1, 0, 0, 0, 0]);

/** A wire to a client that is heard at once; what the server last sent. */
class Heard implements Wire {
  readonly unsent = 0;
  last: Uint8Array = new Uint8Array(0);

  send(bytes: Uint8Array, sent?: () => void): void {
    this.last = bytes.slice();
    sent?.();
  }

  pause(): void {}
  resume(): void {}
  later(action: () => void): void { action(); }
  end(): void {}
  destroy(): void {}
}

interface Change { readonly issued: number; readonly answered: number; readonly offset: number; readonly bytes: Uint8Array }

/** A client whose every change is to be durable when it is answered. */
function client(cut: PowerCutStorage, writeThrough: boolean): (type: number, offset: number, bytes: Uint8Array) => Change {
  const wire = new Heard(), none = (): void => undefined;
  const session = new Session({
    name: "", description: undefined, storage: cut, readOnly: false, preferred: 4096, shared: true, writeThrough,
    // oxlint-disable-next-line require-yield -- all of it is data
    contexts: [{ name: "base:allocation", *extent(_, length) { return { length, flags: 0 }; } }],
  }, wire, new BufferPool(), { agreed: none, failed: none, closed: none });
  session.data(HANDSHAKE);
  return (type, offset, bytes) => {
    const request = Buffer.alloc(28), issued = cut.log.length;
    request.writeUInt32BE(REQUEST_MAGIC, 0);
    request.writeUInt16BE(writeThrough ? 0 : CommandFlag.fua, 4);
    request.writeUInt16BE(type, 6);
    request.writeBigUInt64BE(BigInt(offset), 16);
    request.writeUInt32BE(bytes.length, 24);
    session.data(type === Command.write ? Buffer.concat([request, bytes]) : request);
    // A simple reply: its magic, and no error.
    if (Buffer.from(wire.last.subarray(0, 8)).toString("hex") !== "6744669800000000") throw new Error(`not answered: ${Buffer.from(wire.last).toString("hex")}`);
    return { issued, answered: cut.log.length, offset, bytes };
  };
}

export const NBD: readonly Scenario[] = [false, true].map((writeThrough) => ({
  name: `an NBD client whose changes are durable, ${writeThrough ? "as all are" : "as it asks"}`,
  start(ignored) {
    const random = new Random(4), initial = random.bytes(SIZE), cut = new PowerCutStorage(initial, "file", ignored), change = client(cut, writeThrough);
    const changes = [
      change(Command.write, 1000, random.bytes(3000)), change(Command.write, 500, random.bytes(700)), change(Command.writeZeroes, 8 * KIB, new Uint8Array(4 * KIB)),
      change(Command.write, 9 * KIB, random.bytes(20)), change(Command.trim, 32 * KIB, new Uint8Array(4 * KIB)),
    ];
    return {
      cut,
      judge({ bytes, at }) {
        const sure = initial.slice(), begun = changes.filter(({ issued }) => issued <= at);
        for (const { answered, offset, bytes: written } of begun) if (answered <= at) sure.set(written, offset);
        for (let i = 0; i < SIZE; i++) {
          if (bytes[i] === sure[i] || begun.some(({ answered, offset, bytes: written }) => answered > at && written[i - offset] === bytes[i])) continue;
          return `byte ${i} is ${bytes[i]}, though the client was told of ${sure[i]}`;
        }
        return undefined;
      },
    };
  },
}));
