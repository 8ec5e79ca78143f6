/** A worker of the page; see worker/page-worker.ts for what it answers. */
export function startWorker(): Worker {
  return new Worker(new URL("../worker/worker.ts", import.meta.url), { type: "module", name: "disk86" });
}
