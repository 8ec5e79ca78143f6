import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { startPageServer, bundle, type Handler } from "./pageServer.ts";
import { findTool } from "./tools.ts";

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

/**
 * The Chromium of this machine; check `requireTool("chromium")` first. With a profile, as users have it, or in
 * incognito mode, where OPFS behaves differently.
 */
export async function launchChromium({ incognito = false } = {}): Promise<{ context: BrowserContext; stop(): Promise<void> }> {
  const options = { executablePath: findTool("chromium") ?? "chromium", args: FLAGS };
  if (incognito) {
    const browser = await chromium.launch(options);
    return { context: await browser.newContext(), stop: () => browser.close() };
  }
  const profile = mkdtempSync(join(tmpdir(), "disk86-chromium-"));
  const context = await chromium.launchPersistentContext(profile, options);
  const stop = async (): Promise<void> => {
    await context.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  };
  return { context, stop };
}

/** A dedicated worker in a page in Chromium, whose functions a test calls. */
export interface BrowserWorker {
  readonly page: Page;
  readonly context: BrowserContext;
  /** Calls a function that the worker gave to `serve` (workerHost.ts). Arguments and result are structured clones; arguments may be handles of the page. */
  call<T>(name: string, ...args: unknown[]): Promise<T>;
  /** Another tab with a worker of its own, same origin, same profile. */
  another(): Promise<BrowserWorker>;
  stop(): Promise<void>;
}

interface Answer { readonly ok: boolean; readonly value: unknown }

const PAGE = `<!doctype html><title>test</title><link rel=icon href="data:,"><input type=file id=file><script type=module>
  const worker = new Worker("/worker.js", { type: "module" }), waiting = new Map();
  let calls = 0;
  worker.onerror = (event) => { for (const answer of waiting.values()) answer({ ok: false, value: event.message }); };
  worker.onmessage = ({ data }) => waiting.get(data.id)(data);
  window.callWorker = ([name, args]) => new Promise((resolve) => {
    waiting.set(++calls, resolve);
    worker.postMessage({ id: calls, name, args });
  });
</script>`;

/** Bundles `entry` (a module that calls `serve` of workerHost.ts) and runs it as a dedicated worker. `handle` may answer further URLs of the page's origin. */
export async function startWorker(entry: string, options: { incognito?: boolean; handle?: Handler } = {}): Promise<BrowserWorker> {
  const files = await bundle("worker", entry);
  const server = await startPageServer(files.set("/", PAGE), options.handle);
  const browser = await launchChromium(options);
  const { context } = browser;
  const open = async (close?: () => Promise<void>): Promise<BrowserWorker> => {
    const page = await context.newPage();
    page.on("console", (message) => { console.log(`[chromium] ${message.text()}`); });
    await page.goto(server.url);
    return {
      page, context, stop: close ?? (() => page.close()),
      call: async <T>(name: string, ...args: unknown[]) => {
        const { ok, value } = await page.evaluate((call) => (globalThis as unknown as { callWorker(call: unknown): Promise<Answer> }).callWorker(call), [name, args]);
        if (!ok) throw new Error(String(value));
        return value as T;
      },
      another: () => open(),
    };
  };
  return open(async () => {
    await browser.stop();
    await server.stop();
  });
}
