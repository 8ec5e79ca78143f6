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
  const listed = entries(await response.json());
  return guests.flatMap((guest) => {
    const entry = listed.find(({ name }) => name === guest.name);
    return entry ? [{ guest, url: guestUrl(guest.image), bytes: entry.bytes }] : [];
  });
}

interface Entry { readonly name: string; readonly bytes: number | undefined }

function entries(json: unknown): Entry[] {
  const list: unknown = typeof json === "object" && json !== null && "guests" in json ? json.guests : json;
  if (!Array.isArray(list)) return [];
  return list.flatMap((one: unknown) => {
    if (typeof one === "string") return [{ name: one, bytes: undefined }];
    if (typeof one !== "object" || one === null || !("name" in one) || typeof one.name !== "string") return [];
    const bytes = "bytes" in one ? one.bytes : "size" in one ? one.size : undefined;
    return [{ name: one.name, bytes: typeof bytes === "number" ? bytes : undefined }];
  });
}
