/** In a test's worker: offers `functions` to `BrowserWorker.call`. A failure reaches the test as `<name> <kind>: <message>`. */
export function serve(functions: Record<string, (...args: never[]) => unknown>): void {
  addEventListener("message", ({ data: { id, name, args } }: MessageEvent<{ id: number; name: string; args: never[] }>) => {
    const answer = (ok: boolean, value: unknown): void => self.postMessage({ id, ok, value });
    Promise.resolve()
      .then(() => functions[name]?.(...args))
      .then((value) => answer(true, value), (error: unknown) => answer(false, describe(error)));
  });
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const kind = "kind" in error ? ` ${String(error.kind)}` : "";
  return `${error.name}${kind}: ${error.message}`;
}
