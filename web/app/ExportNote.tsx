import type { JSX } from "preact";
import { bytes } from "../model/words.ts";
import type { PageState } from "./store.ts";

interface Props { readonly exported: NonNullable<PageState["exported"]>; readonly onDismiss: () => void }

/** How to use what was downloaded. */
export function ExportNote({ exported: { name, file, baseFile, baseFormat, base }, onDismiss }: Props): JSX.Element {
  const plain = baseFile.replace(/^\.\//, "");
  return (
    <section class="card note" role="status">
      <h2>Downloaded {name} <small>{bytes(file.size)}</small></h2>
      <p>
        It holds the changes; the base is <code>{plain}</code>. With both in one folder QEMU opens it as it is:
        <code class="line">qemu-system-i386 -m 128 {name}</code>
      </p>
      <p>If the base lies elsewhere or has another name, tell the file once:
        <code class="line">qemu-img rebase -u -b BASE -F {baseFormat} {name}</code>
      </p>
      <div class="actions">
        {base.kind !== "files" && <a class="button" href={base.url} download={plain}>Download the base</a>}
        <button type="button" class="quiet" onClick={onDismiss}>Close</button>
      </div>
    </section>
  );
}
