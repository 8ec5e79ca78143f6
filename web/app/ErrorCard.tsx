import type { JSX } from "preact";
import type { Failure } from "../model/failure.ts";
import type { Problem } from "./store.ts";

/** What happened, in a few words. */
export const TITLES: Readonly<Record<Failure["kind"], string>> = {
  "io": "Reading or writing failed",
  "invalid-format": "Not a disk image",
  "unsupported": "This cannot be booted here",
  "corrupt": "Image and changes do not agree",
  "out-of-bounds": "Outside the disk",
  "not-found": "Not found",
  "no-space": "The browser's storage is full",
  "read-only": "Read-only",
  "locked": "Open in another tab",
  "exists": "Already there",
  "invalid-argument": "That does not fit",
  "unexpected": "Something unexpected happened",
};

/** What to do about it, where the message itself does not say. */
const CURES: Partial<Record<Failure["kind"], string>> = {
  "locked": "Close the other tab or power the machine off there, then try again. A temporary machine starts from the untouched base; nothing of it is kept.",
  "no-space": "Download and delete machines that you no longer need, or free space on this device. Until then the guest sees I/O errors when it writes.",
  "unexpected": "This is a bug of disk86. Reloading the page may help; kept changes are not touched.",
};

interface Props { readonly problem: Problem; readonly onDismiss: () => void }

export function ErrorCard({ problem: { failure, retry, temporary }, onDismiss }: Props): JSX.Element {
  const cure = CURES[failure.kind];
  return (
    <section class="card error" role="alert">
      <h2>{TITLES[failure.kind]}</h2>
      <p class="message">{failure.message}</p>
      {cure && <p>{cure}</p>}
      <div class="actions">
        {retry && <button type="button" class="primary" onClick={retry}>Try again</button>}
        {temporary && <button type="button" onClick={temporary}>Boot a temporary machine</button>}
        <button type="button" class="quiet" onClick={onDismiss}>Dismiss</button>
      </div>
    </section>
  );
}
