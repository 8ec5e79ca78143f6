import { type Guest, guests } from "../../guests/catalog.ts";

/** A built guest that this server has. */
export interface BuiltGuest { readonly guest: Guest; readonly url: string; readonly bytes: number | undefined }

/** Everything of guests/out lies under this, beside the page. */
export const guestUrl = (file: string): string => new URL(`guests/${file}`, document.baseURI).href;

/**
 * The guests the server has, by its `guests/catalog.json`: a list of names, or of objects with a `name`. None where
 * there is no such file: the page is of use without them.
 */
export async function builtGuests(): Promise<BuiltGuest[]> {
  const response = await fetch(guestUrl("catalog.json"), { cache: "no-store" });
  if (!response.ok || !(response.headers.get("content-type") ?? "").includes("json")) return [];
  const names = listed(await response.json());
  return await Promise.all(guests.filter(({ name }) => names.includes(name)).map(async (guest) => {
    const url = guestUrl(guest.image);
    return { guest, url, bytes: await sizeOf(url) };
  }));
}

async function sizeOf(url: string): Promise<number | undefined> {
  const length = await fetch(url, { method: "HEAD" }).then(({ ok, headers }) => (ok ? headers.get("content-length") : null), () => null);
  return length === null ? undefined : Number(length);
}

function listed(json: unknown): string[] {
  const list: unknown = typeof json === "object" && json !== null && "guests" in json ? json.guests : json;
  if (!Array.isArray(list)) return [];
  return list.flatMap((one: unknown) => {
    if (typeof one === "string") return [one];
    return typeof one === "object" && one !== null && "name" in one && typeof one.name === "string" ? [one.name] : [];
  });
}
