import { readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateRawSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type BrowserWorker, startWorker } from "../support/chromium.ts";
import { type PageServer, startPageServer } from "../support/pageServer.ts";
import { freshSeed, Random } from "../support/random.ts";
import { tempFolder } from "../support/temp.ts";
import { requireTool, runTool } from "../support/tools.ts";

const WORKER = fileURLToPath(new URL("storage.worker.ts", import.meta.url));
const image = new Random(3).bytes(300_000);
const list = (bytes: Uint8Array): number[] => [...bytes];

describe.skipIf(!requireTool("chromium"))("storages in a worker in Chromium", () => {
  let worker: BrowserWorker;
  const folder = tempFolder();
  beforeAll(async () => { worker = await startWorker(WORKER); }, 60_000);
  afterAll(() => worker.stop());

  describe("OPFS", () => {
    test("any sequence of changes leaves what it leaves in memory, also when opened again", async () => {
      const seed = freshSeed();
      expect(await worker.call("compare", "folder/below/model.img", seed), `SEED=${seed}`).toBe("same");
    });

    test("is missing, is there, is a folder: each by its name", async () => {
      await expect(worker.call("openOpfs", "nothing.img", "write")).rejects.toThrow(/DiskError not-found: nothing.img: is not in this browser's storage/);
      await expect(worker.call("openOpfs", "no/thing.img", "read")).rejects.toThrow(/DiskError not-found/);
      expect(await worker.call("openOpfs", "made/one.img", "create")).toBe(0);
      await worker.call("close", "made/one.img");
      await expect(worker.call("openOpfs", "made/one.img", "create")).rejects.toThrow(/DiskError exists/);
      await expect(worker.call("openOpfs", "made", "write")).rejects.toThrow(/DiskError invalid-argument: made: is a folder/);
      await expect(worker.call("openOpfs", "/", "write")).rejects.toThrow(/DiskError invalid-argument/);
      await expect(worker.call("openOpfs", "..", "write")).rejects.toThrow(/DiskError invalid-argument: \.\.: is no name/);
    });

    test("what another tab has open is locked, not absent, and free again when it closes", async () => {
      const other = await worker.another();
      await other.call("openOpfs", "shared.img", "create");
      await other.call("write", "shared.img", 0, new Uint8Array([1, 2, 3]));
      for (const mode of ["write", "read", "replace"]) {
        await expect(worker.call("openOpfs", "shared.img", mode)).rejects.toThrow(/DiskError locked: shared.img: is open in another tab/);
      }
      await other.call("close", "shared.img");
      expect(await worker.call("openOpfs", "shared.img", "read")).toBe(3);
      expect(await other.call("openOpfs", "shared.img", "read")).toBe(3);
      await expect(other.call("openOpfs", "shared.img", "write")).rejects.toThrow(/DiskError locked/);
      await expect(worker.call("write", "shared.img", 0, new Uint8Array(1))).rejects.toThrow(/DiskError read-only/);
      await worker.call("close", "shared.img");
      await expect(worker.call("read", "shared.img", 0, 1)).rejects.toThrow(/DiskError io.*closed/);
      await other.stop();
    });

    test("a full quota is no-space, and what was written before stays", async () => {
      const session = await worker.context.newCDPSession(worker.page);
      const origin = new URL(worker.page.url()).origin;
      await worker.call("openOpfs", "full.img", "create");
      await worker.call("fill", "full.img", 0, 100_000);
      await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 4 << 20 });
      await expect(worker.call("fill", "full.img", 100_000, 64 << 20)).rejects.toThrow(/DiskError no-space: full.img: the browser's storage for this site is full/);
      await session.send("Storage.overrideQuotaForOrigin", { origin });
      expect(list(await worker.call<Uint8Array>("read", "full.img", 99_998, 2))).toEqual([7, 7]);
      await worker.call("fill", "full.img", 100_000, 1 << 20);
      await worker.call("close", "full.img");
    });
  });

  describe("a picked file", () => {
    const path = join(folder, "picked.img");
    beforeAll(async () => {
      writeFileSync(path, image);
      await worker.page.setInputFiles("#file", path);
    });
    const pickedFile = () => worker.page.evaluateHandle(() => (document.querySelector("#file") as HTMLInputElement).files?.[0]);

    test("is read in chunks, then from memory", async () => {
      expect(await worker.call("openBlob", "blob", await pickedFile())).toEqual(["picked.img", image.length]);
      expect(list(await worker.call<Uint8Array>("read", "blob", 60_000, 10_000))).toEqual([...image.subarray(60_000, 70_000)]);
      expect(list(await worker.call<Uint8Array>("read", "blob", 299_998, 4))).toEqual([...image.subarray(299_998), 0, 0]);
      expect(await worker.call("isSynchronous", "blob", 70_000, 5000)).toBe(true);
    });

    test("that changed on disk since says so, and is not read", async () => {
      await worker.call("openBlob", "changed", await pickedFile());
      writeFileSync(path, image.slice(0, 200_000));
      utimesSync(path, 1e9, 1e9);
      expect(statSync(path).size).toBe(200_000);
      await expect(worker.call("read", "changed", 0, 10)).rejects.toThrow(/DiskError io: picked.img: the file was changed, moved or removed since it was picked/);
    });
  });

  describe("HTTP from another origin", () => {
    let server: PageServer;
    const methods: string[] = [];
    beforeAll(async () => {
      server = await startPageServer(new Map(), (request, response) => {
        methods.push(`${request.method} ${request.url}`);
        const cors: Record<string, string> = request.url === "/closed.img" ? {} : { "Access-Control-Allow-Origin": "*" };
        if (request.url === "/exposed.img") cors["Access-Control-Expose-Headers"] = "Content-Range, ETag";
        const [, from, to] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? "") ?? [];
        if (request.method === "HEAD") response.writeHead(200, { ...cors, "Content-Length": image.length }).end();
        else if (request.method === "OPTIONS" || from === undefined) response.writeHead(405, cors).end();
        else {
          const part = image.subarray(Number(from), Number(to) + 1);
          response.writeHead(206, { ...cors, "Content-Range": `bytes ${from}-${Number(from) + part.length - 1}/${image.length}`, ETag: '"one"', "Content-Length": part.length }).end(part);
        }
        return true;
      });
    });
    afterAll(() => server.stop());

    test.each([["with exposed headers", "exposed", 0], ["with hidden headers", "hidden", 1]])("%s it opens and reads, without a preflight", async (_, name, heads) => {
      methods.length = 0;
      expect(await worker.call("openHttp", name, `${server.url}/${name}.img`)).toBe(image.length);
      expect(list(await worker.call<Uint8Array>("read", name, 250_000, 1000))).toEqual([...image.subarray(250_000, 251_000)]);
      expect(methods.filter((method) => method.startsWith("OPTIONS"))).toEqual([]);
      expect(methods.filter((method) => method.startsWith("HEAD"))).toHaveLength(heads);
    });

    test("without permission it names the header to send", async () => {
      await expect(worker.call("openHttp", "closed", `${server.url}/closed.img`)).rejects.toThrow(/DiskError io: .*no answer.*Access-Control-Allow-Origin: \*/);
    });
  });

  describe("codecs", () => {
    const text = new Random(9).text(65536);

    test("inflate", async () => {
      expect(list(await worker.call<Uint8Array>("inflate", new Uint8Array(deflateRawSync(text)), text.length))).toEqual([...text]);
    });

    test.skipIf(!requireTool("zstd"))("zstd", async () => {
      writeFileSync(join(folder, "text"), text);
      runTool("zstd", ["-q", join(folder, "text")]);
      expect(list(await worker.call<Uint8Array>("unzstd", new Uint8Array(readFileSync(join(folder, "text.zst"))), text.length))).toEqual([...text]);
    });
  });
});

describe.skipIf(!requireTool("chromium"))("OPFS in incognito mode, which fails without throwing", () => {
  let worker: BrowserWorker;
  beforeAll(async () => { worker = await startWorker(WORKER, { incognito: true }); }, 60_000);
  afterAll(() => worker.stop());

  test("small files work as elsewhere", async () => {
    const seed = freshSeed();
    expect(await worker.call("compare", "model.img", seed), `SEED=${seed}`).toBe("same");
  });

  test("a size that the browser silently does not give is no-space, and the true size is known", async () => {
    await worker.call("openOpfs", "large.img", "create");
    await expect(worker.call("truncate", "large.img", 2 ** 32)).rejects.toThrow(/DiskError no-space/);
    expect(await worker.call("size", "large.img")).toBe(0);
  });
});
