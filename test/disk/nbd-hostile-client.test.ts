import { connect, type Socket } from "node:net";
import { describe, expect, test } from "vitest";
import { DiskError } from "../../disk/errors.ts";
import { DelayedStorage } from "../../disk/filters/delayed.ts";
import { FaultStorage } from "../../disk/filters/fault.ts";
import type { Export } from "../../disk/nbd/export.ts";
import { NbdServer, type ServerOptions } from "../../disk/nbd/server.node.ts";
import type { Storage } from "../../disk/storage.ts";
import { MemoryStorage } from "../../disk/storage/memory.ts";
import { socketPath } from "../support/nbd.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";

const MIB = 2 ** 20;
const folder = tempFolder();

function offer(storage: Storage, more: Partial<Export> = {}): Export {
  return {
    name: "", description: undefined, storage, readOnly: storage.readOnly, preferred: 4096, shared: true, writeThrough: false,
    // oxlint-disable-next-line require-yield -- all of it is data
    contexts: [{ name: "base:allocation", *extent(_, length) { return { length, flags: 0 }; } }],
    ...more,
  };
}

/** Runs `body` with a server of `storage`, and closes it. */
async function served(storage: Storage, body: (socket: string, server: NbdServer) => Promise<void>, options: ServerOptions = {}, more: Partial<Export> = {}): Promise<void> {
  const path = socketPath(folder), server = await NbdServer.listen(offer(storage, more), { path }, options);
  try {
    await body(path, server);
  } finally {
    await server.close();
  }
}

/** A client that sends what it likes. */
class Client {
  #received = Buffer.alloc(0);
  #wake: () => void = () => undefined;
  closed = false;

  private constructor(readonly socket: Socket) {
    socket.on("data", (bytes: Buffer) => { this.#received = Buffer.concat([this.#received, bytes]); this.#wake(); });
    socket.on("error", () => undefined);
    socket.on("close", () => { this.closed = true; this.#wake(); });
  }

  static async connect(path: string): Promise<Client> {
    const client = new Client(connect(path));
    await client.take(18);
    return client;
  }

  /** Past the handshake, by the shortest way: simple replies. */
  static async ready(path: string): Promise<Client> {
    const client = await Client.connect(path);
    client.send(u32(3), option(1));
    await client.take(10);
    return client;
  }

  send(...parts: Uint8Array[]): void {
    this.socket.write(Buffer.concat(parts));
  }

  async take(count: number): Promise<Buffer> {
    while (this.#received.length < count) {
      if (this.closed) throw new Error(`closed after ${this.#received.length} bytes`);
      await new Promise<void>((resolve) => { this.#wake = resolve; });
    }
    const taken = this.#received.subarray(0, count);
    this.#received = this.#received.subarray(count);
    return taken;
  }

  /** The server hangs up. */
  async hungUp(): Promise<void> {
    await expect.poll(() => this.closed, { timeout: 5000 }).toBe(true);
  }
}

function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value, 4 * i);
  return bytes;
}

const option = (number: number, data: Uint8Array = Buffer.alloc(0), length = data.length): Buffer => Buffer.concat([Buffer.from("IHAVEOPT"), u32(number, length), data]);

function request(type: number, offset: number, length: number, { flags = 0, cookie = 7, magic = 0x25609513 } = {}): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(magic, 0);
  bytes.writeUInt16BE(flags, 4);
  bytes.writeUInt16BE(type, 6);
  bytes.writeBigUInt64BE(BigInt(cookie), 8);
  bytes.writeBigUInt64BE(BigInt(offset), 16);
  bytes.writeUInt32BE(length, 24);
  return bytes;
}

const READ = 0, WRITE = 1, DISCONNECT = 2, FLUSH = 3, TRIM = 4, ZEROES = 6, STATUS = 7;

describe("an NBD server and what clients may send it", () => {
  test.each([
    ["unknown client flags", u32(7)], ["no option", Buffer.concat([u32(3), Buffer.alloc(16, 1)])], ["an option of 4 GiB", Buffer.concat([u32(3), option(7, undefined, 2 ** 32 - 1)])],
    ["an export that is not there, by EXPORT_NAME", Buffer.concat([u32(3), option(1, Buffer.from("x"))])], ["no request", Buffer.concat([u32(3), option(1), request(0, 0, 0, { magic: 1 })])],
    ["a write of more than 32 MiB", Buffer.concat([u32(3), option(1), request(WRITE, 0, 32 * MIB + 1)])], ["HTTP", Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n")],
  ])("hangs up on %s", async (_, bytes) => {
    await served(new MemoryStorage(new Uint8Array(MIB)), async (path) => {
      const client = await Client.connect(path);
      client.send(bytes);
      await client.hungUp();
      // The next one is served.
      expect((await Client.ready(path)).closed).toBe(false);
    });
  });

  test.each([
    ["INFO whose name is longer than its data", 6, u32(100)], ["INFO with fewer requests than it says", 6, Buffer.concat([u32(0), Buffer.from([0, 9])])], ["LIST with data", 3, u32(0)],
    ["contexts before structured replies", 10, u32(0, 0)], ["2^32 queries", 10, u32(0, 2 ** 32 - 1)], ["a query of 4 GiB", 9, u32(0, 1, 2 ** 32 - 1)], ["data of STRUCTURED_REPLY", 8, u32(0)],
  ])("refuses %s, and goes on", async (_, number, data) => {
    await served(new MemoryStorage(new Uint8Array(MIB)), async (path) => {
      const client = await Client.connect(path);
      client.send(u32(3), option(number, data));
      const header = await client.take(20);
      expect([header.readUInt32BE(8), header.readUInt32BE(12)]).toEqual([number, 2 ** 31 + 3]);
      await client.take(header.readUInt32BE(16));
      client.send(option(1));
      expect((await client.take(8)).readBigUInt64BE()).toBe(BigInt(MIB));
    });
  });

  test.each([
    ["a read behind the end", request(READ, MIB - 1, 2), 22], ["a read at 2^53", request(READ, 2 ** 53, 1), 22], ["a read of 32 MiB and a byte", request(READ, 0, 32 * MIB + 1), 22],
    ["a write behind the end", Buffer.concat([request(WRITE, MIB - 1, 2), Buffer.alloc(2)]), 28], ["zeros behind the end", request(ZEROES, MIB, 1), 28], ["a trim behind the end", request(TRIM, MIB, 1), 22],
    ["an unknown command", request(99, 0, 1), 22], ["an unknown flag", request(READ, 0, 1, { flags: 0x80 }), 22], ["NO_HOLE of a write", Buffer.concat([request(WRITE, 0, 1, { flags: 2 }), Buffer.alloc(1)]), 22],
    ["FAST_ZERO, which nobody offered", request(ZEROES, 0, 1, { flags: 16 }), 22], ["status without a context", request(STATUS, 0, 1), 22], ["the cookie is the client's", request(99, 0, 0, { cookie: 2 ** 52 + 5 }), 22],
  ])("answers %s with an error", async (_, bytes, errno) => {
    await served(new MemoryStorage(new Uint8Array(MIB)), async (path) => {
      const client = await Client.ready(path);
      client.send(bytes, request(READ, 0, 1));
      const reply = await client.take(16);
      expect([reply.readUInt32BE(0), reply.readUInt32BE(4), reply.subarray(8)]).toEqual([0x67446698, errno, bytes.subarray(8, 16)]);
      expect((await client.take(17)).readUInt32BE(4)).toBe(0);
    });
  });

  test("a read-only export takes no change", async () => {
    const storage = new MemoryStorage(new Uint8Array(MIB).fill(1));
    await served(storage, async (path) => {
      const client = await Client.ready(path);
      client.send(request(WRITE, 0, 4096), Buffer.alloc(4096), request(ZEROES, 0, 4096), request(TRIM, 0, 4096), request(FLUSH, 0, 0));
      const errors = [];
      for (let i = 0; i < 4; i++) errors.push((await client.take(16)).readUInt32BE(4));
      expect(errors).toEqual([1, 1, 1, 0]);
    }, {}, { readOnly: true });
    expect((storage.bytes).every((byte) => byte === 1)).toBe(true);
  });

  test("a client that asks and does not listen costs bounded memory, and nobody else their turn", async () => {
    await served(new MemoryStorage(new Uint8Array(8 * MIB).fill(3)), async (path, server) => {
      const deaf = await Client.ready(path), before = process.memoryUsage().arrayBuffers;
      deaf.socket.pause();
      for (let i = 0; i < 500; i++) deaf.send(request(READ, 0, 8 * MIB));
      const other = await Client.ready(path);
      for (let i = 0; i < 50; i++) {
        other.send(request(READ, 0, 64));
        await other.take(16 + 64);
      }
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(100 * MIB);
      deaf.socket.destroy();
      expect(server.port).toBeUndefined();
    });
  });

  test("endless options without listening are not answered endlessly", async () => {
    await served(new MemoryStorage(new Uint8Array(MIB)), async (path) => {
      const deaf = await Client.connect(path), before = process.memoryUsage().arrayBuffers;
      deaf.socket.pause();
      deaf.send(u32(3), ...Array.from({ length: 100_000 }, () => option(3)));
      // In turns with the server, as long as it takes what was sent.
      for (let turn = 0; turn < 50; turn++) (await Client.ready(path)).socket.destroy();
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(30 * MIB);
      deaf.socket.destroy();
    }, {}, { description: "x".repeat(4000) });
  });

  test("one who never agrees is sent away, and does not block the others for ever", async () => {
    await served(new MemoryStorage(new Uint8Array(MIB)), async (path) => {
      const silent = await Client.connect(path), next = Client.ready(path);
      await silent.hungUp();
      expect((await next).closed).toBe(false);
    }, { clients: 1, patience: 100 });
  });

  test("leaving in the middle of a write changes nothing", async () => {
    const storage = new MemoryStorage(new Uint8Array(MIB));
    await served(storage, async (path) => {
      const client = await Client.ready(path);
      client.send(request(WRITE, 0, 4096), Buffer.alloc(4000, 9));
      await new Promise((resolve) => { setTimeout(resolve, 50); });
      client.socket.destroy();
    });
    expect(storage.bytes.every((byte) => byte === 0)).toBe(true);
  });

  test("what is under way when a client leaves, or the server ends, is done", async () => {
    const inner = new MemoryStorage(new Uint8Array(MIB));
    await served(new DelayedStorage(inner, { wait: () => new Promise((resolve) => { setTimeout(resolve, 30); }) }), async (path) => {
      const leaving = await Client.ready(path), staying = await Client.ready(path);
      leaving.send(request(WRITE, 0, 4), Buffer.alloc(4, 1), request(DISCONNECT, 0, 0));
      staying.send(request(WRITE, 4, 4), Buffer.alloc(4, 2), request(READ, 100, 4));
      await new Promise((resolve) => { setTimeout(resolve, 10); });
      await leaving.take(16);
    });
    expect([...inner.bytes.subarray(0, 9)]).toEqual([1, 1, 1, 1, 2, 2, 2, 2, 0]);
  });

  test.each([
    ["a plain write", 0, false, ["write"]], ["a write with FUA", 1, false, ["write", "flush"]], ["a plain write, written through", 0, true, ["write", "flush"]],
  ])("%s: what is durable when it is answered", async (_, flags, writeThrough, wanted) => {
    const seen: string[] = [];
    await served(new FaultStorage(new MemoryStorage(new Uint8Array(MIB)), (call) => { seen.push(call.op); return undefined; }), async (path) => {
      const client = await Client.ready(path);
      client.send(request(WRITE, 0, 512, { flags }), Buffer.alloc(512, 1));
      expect((await client.take(16)).readUInt32BE(4)).toBe(0);
      expect(seen).toEqual(wanted);
      client.send(request(ZEROES, 0, 512, { flags }), request(TRIM, 0, 512, { flags }), request(FLUSH, 0, 0));
      await client.take(48);
      expect(seen.filter((op) => op === "flush").length).toBe(wanted.length === 2 ? 4 : 1);
    }, {}, { writeThrough });
  });

  test("what the disk cannot do is told to the client, and to the server's owner", async () => {
    const failures: unknown[] = [];
    await served(new FaultStorage(new MemoryStorage(new Uint8Array(MIB)), ({ op }) => (op === "read" ? new DiskError("io", "broken") : op === "write" ? new DiskError("no-space", "full") : undefined)), async (path) => {
      const client = await Client.ready(path);
      client.send(request(READ, 0, 512), request(WRITE, 0, 4), Buffer.alloc(4), request(FLUSH, 0, 0));
      const errors = [];
      for (let i = 0; i < 3; i++) errors.push((await client.take(16)).readUInt32BE(4));
      expect(errors).toEqual([5, 28, 0]);
    }, { failed: (error) => { failures.push(error); } });
    expect(failures.map((error) => (error as DiskError).kind)).toEqual(["io", "no-space"]);
  });

  seeded("noise hurts nobody", async (random) => {
    await served(new MemoryStorage(new Uint8Array(MIB)), async (path) => {
      for (let i = 0; i < 60; i++) {
        const client = random.chance(0.5) ? await Client.connect(path) : await Client.ready(path);
        const valid = Buffer.concat([u32(3), option(6, Buffer.concat([u32(0), Buffer.alloc(2)])), option(8), option(7, Buffer.concat([u32(0), Buffer.alloc(2)])), request(STATUS, 0, 5), request(WRITE, 5, 3), Buffer.alloc(3)]);
        for (let flips = random.int(4); flips >= 0; flips--) valid[random.int(valid.length)] = random.int(256);
        client.send(random.chance(0.3) ? random.bytes(200) : valid.subarray(0, random.int(valid.length)));
        client.socket.end();
      }
      const client = await Client.ready(path);
      client.send(request(READ, 0, 1));
      expect((await client.take(17)).readUInt32BE(4)).toBe(0);
    });
  });
});
