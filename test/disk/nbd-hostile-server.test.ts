import { createServer, type Server, type Socket } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { dialer } from "../../disk/nbd/dial.node.ts";
import { NbdStorage } from "../../disk/storage/nbd.ts";
import { socketPath } from "../support/nbd.ts";
import { seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";

const MIB = 2 ** 20;
const folder = tempFolder();

const u16 = (...values: number[]): Buffer => Buffer.concat(values.map((value) => Buffer.from([value >>> 8, value & 255])));
const u32 = (...values: number[]): Buffer => Buffer.concat(values.map((value) => { const bytes = Buffer.alloc(4); bytes.writeUInt32BE(value); return bytes; }));
const u64 = (value: number | bigint): Buffer => { const bytes = Buffer.alloc(8); bytes.writeBigUInt64BE(BigInt(value)); return bytes; };

const GREETING = Buffer.concat([Buffer.from("NBDMAGICIHAVEOPT"), u16(3)]);
const reply = (option: number, type: number, data: Buffer = Buffer.alloc(0), length = data.length): Buffer => Buffer.concat([u32(0x3e889, 0x45565a9, option, type, length), data]);
const ACK = 1, INFO = 3, CONTEXT = 4, UNSUPPORTED = 2 ** 31 + 1;
const EXPORT = reply(7, INFO, Buffer.concat([u16(0), u64(MIB), u16(1 | 4 | 32 | 64)]));
const chunk = (cookie: number, type: number, data: Buffer, { done = 1, length = data.length } = {}): Buffer => Buffer.concat([u32(0x668e33ef), u16(done, type), u32(0, cookie, length), data]);
const simple = (cookie: number, errno = 0, data: Buffer = Buffer.alloc(0)): Buffer => Buffer.concat([u32(0x67446698, errno, 0, cookie), data]);

type Answer = (cookie: number, type: number, offset: number, length: number) => Buffer;
interface Script { readonly greeting?: Buffer; readonly options?: Readonly<Record<number, Buffer>>; readonly answer?: Answer }

const running: Server[] = [];
afterEach(() => { for (const server of running.splice(0)) server.close(); });

function listen(onSocket: (socket: Socket) => void): string {
  const path = socketPath(folder), server = createServer(onSocket);
  server.listen(path);
  running.push(server);
  return path;
}

/** A server that answers each option and each request with what it was told to. */
function scripted({ greeting = GREETING, options = {}, answer = () => Buffer.alloc(0) }: Script): string {
  const usual: Readonly<Record<number, Buffer>> = { 8: reply(8, ACK), 10: Buffer.concat([reply(10, CONTEXT, Buffer.concat([u32(1), Buffer.from("base:allocation")])), reply(10, ACK)]), 7: Buffer.concat([EXPORT, reply(7, ACK)]) };
  return listen((socket) => {
    socket.on("error", () => undefined);
    socket.write(greeting);
    void talk(socket, { ...usual, ...options }, answer).catch(() => undefined);
  });
}

async function talk(socket: Socket, options: Readonly<Record<number, Buffer>>, answer: Answer): Promise<void> {
  const take = reader(socket);
  await take(4);
  for (let agreed = false; !agreed;) {
    const header = await take(16), option = header.readUInt32BE(8), answered = options[option] ?? reply(option, UNSUPPORTED);
    await take(header.readUInt32BE(12));
    agreed = option === 1 || (option === 7 && !answered.equals(reply(7, UNSUPPORTED)));
    socket.write(answered);
  }
  for (;;) {
    const request = await take(28), type = request.readUInt16BE(6), length = request.readUInt32BE(24);
    if (type === 1) await take(length);
    socket.write(answer(request.readUInt32BE(12), type, Number(request.readBigUInt64BE(16)), length));
  }
}

/** Reads so many bytes; rejects when the socket is closed. */
function reader(socket: Socket): (count: number) => Promise<Buffer> {
  let received = Buffer.alloc(0), closed = false, wake = (): void => undefined;
  socket.on("data", (bytes: Buffer) => { received = Buffer.concat([received, bytes]); wake(); });
  socket.on("close", () => { closed = true; wake(); });
  return async (count) => {
    while (received.length < count) {
      if (closed) throw new Error("closed");
      await new Promise<void>((resolve) => { wake = resolve; });
    }
    const taken = received.subarray(0, count);
    received = received.subarray(count);
    return taken;
  };
}

function connect(path: string): Promise<NbdStorage> {
  return NbdStorage.open("nbd:test", dialer({ type: "unix", path }), { writable: true });
}

describe("an NBD client and what servers may send it", () => {
  test.each([
    ["no NBD at all", { greeting: Buffer.from("SSH-2.0-OpenSSH_9.2 and more of it") }, /is no NBD server/],
    ["the old protocol", { greeting: Buffer.concat([Buffer.from("NBDMAGIC"), Buffer.from("0000420281861253", "hex"), Buffer.alloc(140)]) }, /oldstyle/],
    ["a reply that is none", { options: { 8: Buffer.alloc(20, 7) } }, /no reply to what it was asked/],
    ["a reply to another option", { options: { 8: reply(3, ACK) } }, /no reply to what it was asked/],
    ["a reply of 4 GiB", { options: { 7: reply(7, INFO, undefined, 2 ** 32 - 1) } }, /a reply of 4294967295 bytes/],
    ["replies without end", { options: { 7: Buffer.concat(Array.from({ length: 1001 }, () => EXPORT)) } }, /without end/],
    ["no size", { options: { 7: reply(7, ACK) } }, /without telling its size/],
    ["2^63 bytes", { options: { 7: Buffer.concat([reply(7, INFO, Buffer.concat([u16(0), u64(2n ** 63n), u16(1)])), reply(7, ACK)]) } }, /a size of/],
    ["blocks of 3 bytes", { options: { 7: Buffer.concat([reply(7, INFO, Buffer.concat([u16(3), u32(3, 4096, MIB)])), EXPORT, reply(7, ACK)]) } }, /block sizes/],
    ["blocks of 0 bytes", { options: { 7: Buffer.concat([reply(7, INFO, Buffer.concat([u16(3), u32(0, 0, 0)])), EXPORT, reply(7, ACK)]) } }, /block sizes/],
    ["blocks larger than requests", { options: { 7: Buffer.concat([reply(7, INFO, Buffer.concat([u16(3), u32(4096, 4096, 512)])), EXPORT, reply(7, ACK)]) } }, /block sizes/],
    ["a refusal with an escape sequence", { options: { 7: reply(7, 2 ** 31 + 2, Buffer.from("go\u001b[2J away")) } }, /it says: go \[2J away/],
    ["a wish for TLS", { options: { 7: reply(7, 2 ** 31 + 5) } }, /wants TLS/],
  ])("%s is refused", async (_, script, why) => {
    await expect(connect(scripted(script))).rejects.toMatchObject({ name: "DiskError", message: expect.stringMatching(why) });
  });

  test("a server that hangs up in the handshake", async () => {
    const path = listen((socket) => { socket.end(GREETING); });
    await expect(connect(path)).rejects.toMatchObject({ kind: "io", message: expect.stringContaining("closed the connection") });
  });

  test.each([["without padding", GREETING, 0], ["with padding", Buffer.concat([Buffer.from("NBDMAGICIHAVEOPT"), u16(1)]), 124], ["not even fixed", Buffer.concat([Buffer.from("NBDMAGICIHAVEOPT"), u16(0)]), 124]])("an old server, %s: neither GO nor chunks", async (_, greeting, padding) => {
    const path = scripted({
      greeting,
      options: { 8: reply(8, UNSUPPORTED), 7: reply(7, UNSUPPORTED), 1: Buffer.concat([u64(MIB), u16(1), Buffer.alloc(padding)]) },
      answer: (cookie, _, __, length) => simple(cookie, 0, Buffer.alloc(length, 5)),
    });
    const storage = await connect(path), into = new Uint8Array(100);
    await storage.read(0, into);
    expect([storage.size, into.every((byte) => byte === 5), storage.dataAt(0)]).toEqual([MIB, true, { data: true, length: MIB }]);
  });

  const data = (offset: number, bytes: Buffer): Buffer => Buffer.concat([u64(offset), bytes]);
  const hole = (offset: number, size: number): Buffer => Buffer.concat([u64(offset), u32(size)]);
  test.each<[string, (cookie: number) => Buffer, RegExp]>([
    ["noise", () => Buffer.alloc(40, 3), /no reply/], ["a cookie that nobody asked with", (cookie) => chunk(cookie + 1000, 0, Buffer.alloc(0)), /nobody made/],
    ["a simple reply to a read", (cookie) => simple(cookie, 0, Buffer.alloc(8192)), /simple reply to a read/], ["success without data", (cookie) => chunk(cookie, 0, Buffer.alloc(0)), /not complete/],
    ["half of the data", (cookie) => chunk(cookie, 1, data(4096, Buffer.alloc(4096))), /not complete/], ["data for another place", (cookie) => chunk(cookie, 1, data(0, Buffer.alloc(4096))), /another place/],
    ["data at 2^64 - 1", (cookie) => chunk(cookie, 1, Buffer.concat([u64(2n ** 64n - 1n), Buffer.alloc(2)])), /another place/], ["more data than was asked for", (cookie) => chunk(cookie, 1, data(4096, Buffer.alloc(8193))), /another place/],
    ["4 GiB of data", (cookie) => chunk(cookie, 1, data(4096, Buffer.alloc(0)), { length: 2 ** 32 - 1 }), /another place/], ["a data chunk shorter than its offset", (cookie) => chunk(cookie, 1, Buffer.alloc(8)), /another place/],
    ["the same data twice", (cookie) => Buffer.concat([chunk(cookie, 1, data(4096, Buffer.alloc(4096)), { done: 0 }), chunk(cookie, 1, data(4096, Buffer.alloc(4096)))]), /not complete/],
    ["overlapping parts", (cookie) => Buffer.concat([chunk(cookie, 2, hole(8192, 4096), { done: 0 }), chunk(cookie, 1, data(6144, Buffer.alloc(4096)))]), /not complete/],
    ["a hole behind the request", (cookie) => chunk(cookie, 2, hole(4096, 2 ** 32 - 1)), /another place/], ["a hole of nothing", (cookie) => chunk(cookie, 2, hole(4096, 0)), /another place/], ["a hole of another length", (cookie) => chunk(cookie, 2, Buffer.alloc(13)), /a hole of 13/],
    ["block status", (cookie) => chunk(cookie, 5, Buffer.alloc(12)), /a chunk of type 5/], ["an unknown chunk", (cookie) => chunk(cookie, 77, Buffer.alloc(12)), /a chunk of type 77/], ["nothing, with a length", (cookie) => chunk(cookie, 0, Buffer.alloc(1)), /nothing/],
    ["an error of 4 GiB", (cookie) => chunk(cookie, 0x8001, Buffer.alloc(6), { length: 2 ** 32 - 1 }), /an error of/], ["an error that is none", (cookie) => chunk(cookie, 0x8001, Buffer.alloc(6)), /an error that is none/],
    ["an error message beyond its chunk", (cookie) => chunk(cookie, 0x8001, Buffer.concat([u32(5), u16(900)])), /longer than its chunk/],
  ])("%s in reply to a read ends the connection with an error", async (_, answer, why) => {
    const storage = await connect(scripted({ answer: (cookie) => answer(cookie) }));
    const all = await Promise.allSettled([storage.read(4096, new Uint8Array(8192)), storage.read(4096, new Uint8Array(8192))]);
    expect(all.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(String((all[0] as PromiseRejectedResult).reason)).toMatch(why);
    await expect(storage.read(0, new Uint8Array(1))).rejects.toMatchObject({ kind: "io" });
  });

  test("an error in reply to a read ends that read alone", async () => {
    const storage = await connect(scripted({
      answer: (cookie, _, offset) => (offset === 0
        ? Buffer.concat([chunk(cookie, 2, Buffer.concat([u64(0), u32(10)]), { done: 0 }), chunk(cookie, 0x8002, Buffer.concat([u32(5), u16(3), Buffer.from("bad"), u64(3)]))])
        : chunk(cookie, 1, Buffer.concat([u64(offset), Buffer.from("good")]))),
    }));
    await expect(storage.read(0, new Uint8Array(10))).rejects.toMatchObject({ kind: "io", message: expect.stringContaining("it says: bad") });
    const into = Buffer.alloc(4);
    await storage.read(4, into);
    expect(into.toString()).toBe("good");
  });

  test.each([
    ["of nothing", u32(1, 0, 0), /status of nothing/], ["of 13 bytes", Buffer.alloc(13), /a block status of 13/], ["of another context", u32(2, 4096, 3), /no block status/], ["without extents", u32(1), /a block status of 4/],
  ])("a block status %s", async (_, payload, why) => {
    const storage = await connect(scripted({ answer: (cookie) => chunk(cookie, 5, payload) }));
    await expect(storage.learn(0)).rejects.toThrow(why);
  });

  test("a block status that reaches beyond the end is cut there; a million extents are not all kept", async () => {
    const storage = await connect(scripted({ answer: (cookie, _, offset) => chunk(cookie, 5, offset === 0 ? u32(1, 2 ** 32 - 1, 3) : Buffer.concat([u32(1), ...Array.from({ length: 100_000 }, () => u32(1, 0))])) }));
    await storage.learn(0);
    expect(storage.dataAt(5)).toEqual({ data: false, length: MIB - 5 });
    await storage.learn(4096);
    expect(storage.dataAt(4096)).toEqual({ data: true, length: 1 });
    expect(storage.dataAt(4096 + 65_536)).toBeUndefined();
  });

  seeded("noise in replies is an error or right data, never a hang or wrong success", async (random) => {
    for (let i = 0; i < 80; i++) {
      const storage = await connect(scripted({
        answer: (cookie, _, offset, length) => {
          const bytes = Buffer.concat([chunk(cookie, 2, Buffer.concat([u64(offset), u32(512)]), { done: 0 }), chunk(cookie, 1, Buffer.concat([u64(offset + 512), Buffer.alloc(length - 512, 7)]))]);
          // Not in the data, which may be anything.
          for (let flips = random.int(3); flips > 0; flips--) bytes[random.int(60)] = random.int(256);
          return Buffer.concat([bytes, Buffer.alloc(64, 1)]);
        },
      }));
      const into = new Uint8Array(1024).fill(9);
      const outcome = await Promise.resolve(storage.read(2048, into)).then(() => "right", (error: Error) => error.name);
      expect(outcome === "right" ? [...into.subarray(0, 512)].every((byte) => byte === 0) && [...into.subarray(512)].every((byte) => byte === 7) : outcome === "DiskError").toBe(true);
      await storage.close();
    }
  });
});
