import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { PageStore } from "./store.ts";

/** Drop, pick, or name by URL. Files may be dropped anywhere on the page. */
export function OwnImage({ store }: { readonly store: PageStore }): JSX.Element {
  const over = useFileDrop((files) => void store.bootFiles(files));
  return (
    <section aria-labelledby="own" class="own">
      <h2 id="own">Your own image</h2>
      <div class={`card drop ${over ? "over" : ""}`}>
        <p class="prompt">Drop a disk image here: qcow2, vmdk, vdi, vhd, vhdx, raw, qcow, qed, parallels, cow, dmg, cloop or bochs. It is read in this browser and never uploaded or changed.</p>
        <div class="actions">
          <label class="button" for="pick">Pick a file…</label>
          <input id="pick" class="offstage" type="file" multiple onChange={({ currentTarget }) => {
            const files = [...(currentTarget.files ?? [])];
            currentTarget.value = "";
            void store.bootFiles(files);
          }} />
          <span class="hint">With a backing file: pick both together.</span>
        </div>
        <UrlForm store={store} />
      </div>
    </section>
  );
}

function UrlForm({ store }: { readonly store: PageStore }): JSX.Element {
  const [url, setUrl] = useState("");
  return (
    <form class="url" onSubmit={(event) => {
      event.preventDefault();
      void store.bootUrl(url);
    }}>
      <label for="url">Or the address of an image on the web</label>
      <div class="field">
        <input id="url" type="text" inputMode="url" autocomplete="url" spellcheck={false} required placeholder="https://example.org/disk.qcow2" value={url} onInput={({ currentTarget }) => setUrl(currentTarget.value)} />
        <button type="submit">Boot</button>
      </div>
      <p class="hint">Only what the guest reads is fetched. From another site, its server must allow it (CORS) and answer range requests.</p>
    </form>
  );
}

/** Whether files are being dragged over the page. */
function useFileDrop(onDrop: (files: File[]) => void): boolean {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const abort = new AbortController(), { signal } = abort;
    const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
    addEventListener("dragover", (event) => {
      if (!hasFiles(event)) return;
      event.preventDefault();
      setOver(true);
    }, { signal });
    addEventListener("dragleave", (event) => { if (event.relatedTarget === null) setOver(false); }, { signal });
    addEventListener("drop", (event) => {
      setOver(false);
      if (!hasFiles(event)) return;
      event.preventDefault();
      onDrop([...(event.dataTransfer?.files ?? [])]);
    }, { signal });
    return () => abort.abort();
  }, []);
  return over;
}
