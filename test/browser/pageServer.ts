/** The page's server, as `npm start` runs it. */
export interface PageServer { readonly url: string; stop(): Promise<void> }

export function startPage(): Promise<PageServer> {
  const url = process.env["PAGE_URL"] ?? "";
  return Promise.resolve({ url, stop: () => Promise.resolve() });
}
