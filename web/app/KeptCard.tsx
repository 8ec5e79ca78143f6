import type { JSX } from "preact";
import { useId, useState } from "preact/hooks";
import type { KeptMachine } from "../model/machine.ts";
import { ago, bytes } from "../model/words.ts";
import { ConfirmButton } from "./ConfirmButton.tsx";
import { useClock } from "./observable.ts";
import { KeptChip } from "./StateChip.tsx";
import { KeptSettings } from "./SettingsForm.tsx";
import type { PageStore } from "./store.ts";

interface Props { readonly store: PageStore; readonly kept: KeptMachine; readonly persisted: boolean }

/** A machine that is off, or open in another tab. */
export function KeptCard({ store, kept, persisted }: Props): JSX.Element {
  useClock(20_000);
  const { record, openElsewhere } = kept, [settings, setSettings] = useState(kept.settings);
  return (
    <article class="card kept" data-machine={record.id}>
      <header>
        <h3>{record.title}</h3>
        <KeptChip openElsewhere={openElsewhere} persisted={persisted} />
      </header>
      <p class="facts">{bytes(kept.bytes)} of changes over {record.baseFile.replace(/^\.\//, "")} · last written {ago(kept.changed)}</p>
      {openElsewhere
        ? <OpenElsewhere store={store} kept={kept} />
        : (
          <div class="actions">
            <ContinueButton store={store} kept={{ ...kept, settings }} />
            <button type="button" onClick={() => void store.downloadKept(kept)}>Download</button>
            <ConfirmButton question="Delete the changes for good?" yes="Delete" no="Keep" onConfirm={() => void store.startFresh(record.id)}>Start fresh…</ConfirmButton>
          </div>
        )}
      {!openElsewhere && <KeptSettings settings={settings} onChange={setSettings} />}
    </article>
  );
}

function OpenElsewhere({ store, kept }: Omit<Props, "persisted">): JSX.Element {
  return (
    <>
      <p>Another tab or window runs this machine. Its changes are safe there; go on in that tab, or power it off there first.</p>
      <div class="actions">
        <button type="button" onClick={() => void store.attempt(() => store.refresh())}>Look again</button>
        {kept.record.base.kind !== "files" && <button type="button" class="quiet" onClick={() => void store.continue(kept)}>Continue here</button>}
      </div>
    </>
  );
}

/** Browsers forget a picked file when the page is left: it has to be picked again. */
function ContinueButton({ store, kept }: Omit<Props, "persisted">): JSX.Element {
  const id = useId(), { base } = kept.record;
  if (base.kind !== "files") return <button type="button" class="primary" onClick={() => void store.continue(kept)}>Continue</button>;
  const wanted = base.files.map(({ name, size }) => `${name} (${bytes(size)})`).join(" and ");
  return (
    <span class="pick">
      <label class="button primary" for={id}>Continue: pick {wanted} again</label>
      <input id={id} class="offstage" type="file" multiple={base.files.length > 1} onChange={({ currentTarget }) => {
        const files = [...(currentTarget.files ?? [])];
        currentTarget.value = "";
        if (files.length > 0) void store.continue(kept, files);
      }} />
    </span>
  );
}
