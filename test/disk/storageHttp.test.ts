import { writeFileSync, truncateSync, utimesSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type HttpOptions, HttpStorage } from "../../disk/storage/http.ts";
import { expectBytes } from "../support/bytes.ts";
import { startNginx } from "../support/nginx.ts";
import { Random, seeded } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool } from "../support/tools.ts";

const CHUNK = 4096;
const image = new Random(5).bytes(100_000);
const quick: HttpOptions = { chunkSize: CHUNK, readaheadBytes: 0, backoff: 5, timeout: 300 };
const failure = (kind: string, words: RegExp): object => expect.objectContaining({ name: "DiskError", kind, message: expect.stringMatching(words) });

async function readBytes(storage: HttpStorage, offset: number, length: number): Promise<Uint8Array> {
  const into = new Uint8Array(length).fill(0xee);
  await storage.read(offset, into);
  return into;
}

/** What our server shall do with a request; `good` answers it properly, with `headers` on top or instead (null: without). */
type Behaviour = (request: IncomingMessage, response: ServerResponse, good: (headers?: Record<string, string | null>) => void) => void;

let server: Server;
let url: string;
let behave: Behaviour = (_request, _response, good) => good();
let requests: string[] = [];
let storage: HttpStorage | undefined;

beforeAll(async () => {
  server = createServer((request, response) => {
    requests.push(`${request.method} ${request.headers.range ?? "-"}`);
    behave(request, response, (headers) => answer(request, response, headers));
  });
  await new Promise<void>((resolve) => { server.listen(0, "127.0.0.1", resolve); });
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/disk.img`;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
afterEach(() => {
  storage?.close();
  behave = (_request, _response, good) => good();
  requests = [];
});

function answer(request: IncomingMessage, response: ServerResponse, headers: Record<string, string | null> = {}): void {
  const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
  const start = Number(from);
  const part = image.subarray(start, Number(to) + 1);
  const range = `bytes ${start}-${start + part.length - 1}/${image.length}`;
  if (request.method === "HEAD") return void response.writeHead(200, present({ "Content-Length": String(image.length), ...headers })).end();
  if (part.length === 0) return void response.writeHead(416, { "Content-Range": `bytes */${image.length}` }).end();
  response.writeHead(206, present({ "Content-Range": range, "Content-Length": String(part.length), ETag: '"one"', ...headers }));
  response.end(part);
}

const present = (headers: Record<string, string | null>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).filter((entry): entry is [string, string] => entry[1] !== null));

const open = async (options: HttpOptions = {}): Promise<HttpStorage> => (storage = await HttpStorage.open(url, { ...quick, ...options }));

describe("a server that does as it should", () => {
  test("one request opens it and brings the first chunk", async () => {
    const storage = await open();
    expect([storage.size, storage.name, storage.readOnly]).toEqual([image.length, url, true]);
    expect(storage.identity).toEqual({ size: image.length, etag: '"one"', lastModified: undefined });
    expect(storage.read(0, new Uint8Array(CHUNK))).toBeUndefined();
    expect(requests).toEqual(["GET bytes=0-4095"]);
  });

  test("one simple Range header and no other that would need a preflight", async () => {
    let seen: string[] = [];
    behave = (request, _response, good) => {
      seen = Object.keys(request.headers);
      good();
    };
    await readBytes(await open(), 50_000, 10);
    expect(seen.filter((name) => !["host", "connection", "accept", "accept-encoding", "accept-language", "user-agent", "sec-fetch-mode", "cache-control", "pragma"].includes(name))).toEqual(["range"]);
  });

  seeded("any reads give the file's bytes, zeros behind its end", async (random) => {
    const storage = await open({ cacheBytes: 20_000 });
    await Promise.all(Array.from({ length: 50 }, async () => {
      const offset = random.int(image.length + 100);
      const length = 1 + random.int(10_000);
      const want = new Uint8Array(length);
      want.set(image.subarray(offset, offset + length));
      expectBytes(await readBytes(storage, offset, length), want);
    }));
    expect(requests.length).toBeGreaterThan(10);
  });

  test("where Content-Range is hidden, as from another origin, HEAD tells the size and the last byte proves it", async () => {
    behave = (_request, _response, good) => good({ "Content-Range": null, ETag: null });
    const storage = await open();
    expect(storage.size).toBe(image.length);
    expectBytes(await readBytes(storage, 99_000, 1000), image.subarray(99_000));
    expect(requests.slice(0, 3)).toEqual(["GET bytes=0-4095", "HEAD -", "GET bytes=99999-100000"]);
  });
});

describe("opening fails, and says what to do", () => {
  const cases: [string, Behaviour, string, RegExp][] = [
    ["200 instead of 206", (_, response) => void response.writeHead(200).end(image), "unsupported", /whole file.*200, not 206.*must answer 'Range/],
    ["404", (_, response) => void response.writeHead(404).end(), "not-found", /no such file \(404\)/],
    ["403", (_, response) => void response.writeHead(403).end(), "io", /refuses access \(403\): make the file public/],
    ["418", (_, response) => void response.writeHead(418).end(), "io", /answered 418/],
    ["500", (_, response) => void response.writeHead(500).end(), "io", /in trouble \(500\).*tried 2 times/],
    ["gzip", (_, response) => void response.writeHead(206, { "Content-Encoding": "gzip", "Content-Range": "bytes 0-99/100000" }).end(gzipSync(image.subarray(0, 100))), "unsupported", /Content-Encoding: gzip.*gzip off/],
    ["several parts", (_, response) => void response.writeHead(206, { "Content-Type": "multipart/byteranges; boundary=x" }).end("--x--"), "io", /another range, 'multipart/],
    ["another range", (_, __, good) => good({ "Content-Range": "bytes 100-4195/100000" }), "io", /another range, 'bytes 100-4195\/100000'/],
    ["no size anywhere", (request, response, good) => (request.method === "HEAD" ? void response.writeHead(405).end() : good({ "Content-Range": null })), "unsupported", /does not tell the file's size.*Access-Control-Expose-Headers: Content-Range/],
    ["a HEAD without a length", (_, __, good) => good({ "Content-Range": null, "Content-Length": null }), "unsupported", /does not tell the file's size/],
    ["a body cut short", (_, __, good) => good({ "Content-Length": "9999", Connection: "close" }), "io", /ended after \d+ of \d+|no answer/],
    ["a connection that is dropped", (request) => void request.socket.destroy(), "io", /no answer.*Access-Control-Allow-Origin: \*.*tried 2 times/],
    ["silence", () => undefined, "io", /sent nothing for 0.3 s.*tried 2 times/],
    ["a body that stalls", (_, response) => { response.writeHead(206, { "Content-Range": "bytes 0-4095/100000", "Content-Length": "4096" }).write(image.subarray(0, 10)); }, "io", /sent nothing for 0.3 s/],
  ];
  test.each(cases)("%s", async (_, behaviour, kind, words) => {
    behave = behaviour;
    await expect(open()).rejects.toEqual(failure(kind, words));
  });

  test.each(["99000", "100001", "5", "0"])("a HEAD that lies about the size, %s, is found out", async (lie) => {
    behave = (request, response, good) => (request.method === "HEAD" ? void response.writeHead(200, { "Content-Length": lie }).end() : good({ "Content-Range": null }));
    await expect(open()).rejects.toEqual(failure("unsupported", /does not tell the file's size/));
  });

  test("the whole file is not downloaded when it comes instead of a part", async () => {
    let sent = 0;
    let cut = false;
    behave = (_request, response) => {
      response.writeHead(200);
      response.once("close", () => { cut = true; });
      const more = (): void => {
        if (cut || sent >= 512 << 20) return;
        sent += 65536;
        response.write(new Uint8Array(65536), more);
      };
      more();
    };
    await expect(open({ timeout: 60_000 })).rejects.toEqual(failure("unsupported", /200, not 206/));
    await expect.poll(() => cut).toBe(true);
    expect(sent).toBeLessThan(64 << 20);
  });

  test("an endless part is not downloaded either", async () => {
    let cut = false;
    behave = (_request, response) => {
      response.writeHead(206, { "Content-Range": "bytes 0-4095/100000" });
      response.once("close", () => { cut = true; });
      const more = (): void => void (cut || response.write(new Uint8Array(65536), more));
      more();
    };
    await expect(open({ timeout: 60_000 })).rejects.toEqual(failure("io", /more than the 4096 bytes/));
    await expect.poll(() => cut).toBe(true);
  });

  test.each(["http://127.0.0.1:1/x", "nonsense"])("%s answers nothing", async (address) => {
    await expect(HttpStorage.open(address, quick)).rejects.toEqual(failure("io", /no answer from the server: check the address/));
  });
});

describe("reading fails, and says what to do", () => {
  const cases: [string, Behaviour, string, RegExp][] = [
    ["another ETag", (_, __, good) => good({ ETag: '"two"' }), "io", /changed on the server.*ETag was "one" and is "two"/],
    ["another size", (_, __, good) => good({ "Content-Range": "bytes 49152-53247/100001" }), "io", /changed on the server.*size was 100000 and is 100001/],
    ["416", (_, response) => void response.writeHead(416).end(), "io", /changed on the server.*become shorter/],
    ["another range", (_, __, good) => good({ "Content-Range": "bytes 0-4095/100000" }), "io", /another range/],
    ["200", (_, response) => void response.writeHead(200).end(image), "unsupported", /200, not 206/],
    ["404", (_, response) => void response.writeHead(404).end(), "not-found", /404/],
    ["503 for good", (_, response) => void response.writeHead(503).end(), "io", /\(503\).*tried 4 times.*0xc000/],
    ["too little", (_, response) => void response.writeHead(206, { "Content-Range": "bytes 49152-53247/100000" }).end(image.subarray(0, 100)), "io", /after 100 of 4096 bytes.*tried 4 times/],
    ["too much", (_, response) => void response.writeHead(206, { "Content-Range": "bytes 49152-53247/100000" }).end(image), "io", /more than the 4096 bytes/],
  ];
  test.each(cases)("%s", async (_, behaviour, kind, words) => {
    const storage = await open();
    behave = behaviour;
    await expect(readBytes(storage, 50_000, 100)).rejects.toEqual(failure(kind, words));
    expectBytes(await readBytes(storage, 10, 100), image.subarray(10, 110)); // what is resident stays
  });

  test("faults that pass are tried again: a dropped connection, 503, a short body, silence", async () => {
    const storage = await open();
    const faults: Behaviour[] = [
      (request) => void request.socket.destroy(), (_, response) => void response.writeHead(503).end(),
      (_, response) => void response.writeHead(206, { "Content-Range": "bytes 49152-53247/100000" }).end("x"),
    ];
    behave = (request, response, good) => (faults.shift() ?? ((_a, _b, c: () => void) => c()))(request, response, good);
    expectBytes(await readBytes(storage, 50_000, 100), image.subarray(50_000, 50_100));
    faults.push(() => undefined);
    expectBytes(await readBytes(storage, 60_000, 100), image.subarray(60_000, 60_100));
    expect(faults).toHaveLength(0);
  });

  test("slow is not silent: a body may take longer than the timeout while it comes", async () => {
    const storage = await open();
    behave = (_request, response) => {
      response.writeHead(206, { "Content-Range": "bytes 49152-53247/100000" });
      for (let piece = 0; piece < 8; piece++) setTimeout(() => { response.write(image.subarray(49152 + piece * 512, 49152 + (piece + 1) * 512)); }, piece * 60);
      setTimeout(() => { response.end(); }, 480);
    };
    expectBytes(await readBytes(storage, 49_152, CHUNK), image.subarray(49_152, 49_152 + CHUNK));
    expect(requests).toHaveLength(2);
  });

  test("with ETags hidden, another Last-Modified is a change; a weak ETag for a strong one is not", async () => {
    behave = (_request, _response, good) => good({ ETag: null, "Last-Modified": "Mon, 02 Nov 2026 00:00:00 GMT" });
    const first = await open();
    behave = (_request, _response, good) => good({ ETag: null, "Last-Modified": "Tue, 03 Nov 2026 00:00:00 GMT" });
    await expect(readBytes(first, 50_000, 1)).rejects.toEqual(failure("io", /it is of Tue, 03 Nov/));
    first.close();
    behave = (_request, _response, good) => good();
    const second = await open();
    behave = (_request, _response, good) => good({ ETag: 'W/"one"' });
    expect(await readBytes(second, 50_000, 1)).toEqual(image.slice(50_000, 50_001));
  });

  test("close ends a read that waits, and a retry that sleeps, at once", async () => {
    const waiting = await open({ timeout: 60_000 });
    behave = () => undefined;
    const pending = readBytes(waiting, 50_000, 1);
    await expect.poll(() => requests.length).toBe(2);
    waiting.close();
    await expect(pending).rejects.toEqual(failure("io", /closed/));
    behave = (_request, _response, good) => good();
    const sleeping = await open({ backoff: 60_000 });
    behave = (_request, response) => void response.writeHead(503).end();
    const retried = readBytes(sleeping, 50_000, 1);
    await expect.poll(() => requests.length).toBe(4);
    await new Promise((resolve) => { setTimeout(resolve, 30); });
    sleeping.close();
    await expect(retried).rejects.toEqual(failure("io", /closed|503/));
  });
});

describe.skipIf(!requireTool("nginx"))("nginx", () => {
  const folder = tempFolder();
  const path = join(folder, "disk.img");
  let nginx: { url: string; stop(): Promise<void> };
  beforeAll(async () => {
    writeFileSync(path, image);
    writeFileSync(join(folder, "empty.img"), "");
    nginx = await startNginx(folder, `
      location /zipped/ { alias ${folder}/; gzip on; gzip_types *; gzip_min_length 1; }
      location /norange/ { alias ${folder}/; max_ranges 0; }`);
  });
  afterAll(() => nginx.stop());

  test("serves ranges: whole, at the end, and behind it", async () => {
    storage = await HttpStorage.open(`${nginx.url}/disk.img`, quick);
    expect(storage.size).toBe(image.length);
    expect(storage.identity.etag).toMatch(/^"/);
    expectBytes(await readBytes(storage, 0, image.length), image);
    expect([...(await readBytes(storage, image.length - 2, 4))]).toEqual([...image.subarray(-2), 0, 0]);
  });

  test("an empty file is a storage of size 0", async () => {
    storage = await HttpStorage.open(`${nginx.url}/empty.img`, quick);
    expect(storage.size).toBe(0);
    expect([...(await readBytes(storage, 0, 2))]).toEqual([0, 0]);
  });

  test("with gzip on, ranges still come plain", async () => {
    storage = await HttpStorage.open(`${nginx.url}/zipped/disk.img`, quick);
    expectBytes(await readBytes(storage, 50_000, 100), image.subarray(50_000, 50_100));
  });

  test("with ranges switched off it says which setting", async () => {
    await expect(HttpStorage.open(`${nginx.url}/norange/disk.img`, quick)).rejects.toEqual(failure("unsupported", /200, not 206/));
  });

  test("a missing file", async () => {
    await expect(HttpStorage.open(`${nginx.url}/no.img`, quick)).rejects.toEqual(failure("not-found", /404/));
  });

  test("a file exchanged under an open storage is noticed", async () => {
    storage = await HttpStorage.open(`${nginx.url}/disk.img`, quick);
    truncateSync(path, 90_000);
    utimesSync(path, 1e9, 1e9);
    await expect(readBytes(storage, 50_000, 1)).rejects.toEqual(failure("io", /changed on the server/));
    writeFileSync(path, image);
  });
});
