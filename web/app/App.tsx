import type { JSX } from "preact";
import { ErrorCard } from "./ErrorCard.tsx";
import { ExportNote } from "./ExportNote.tsx";
import { Home } from "./Home.tsx";
import { MachinePage } from "./MachinePage.tsx";
import { useObservable } from "./observable.ts";
import type { PageStore } from "./store.ts";

export function App({ store }: { readonly store: PageStore }): JSX.Element {
  const { session, problem, exported } = useObservable(store);
  return (
    <div class="page">
      <header class="masthead">
        <h1><span class="mark" aria-hidden="true" />disk86</h1>
        <p>Real disk images in a PC in your browser</p>
      </header>
      <main>
        {problem && <ErrorCard problem={problem} onDismiss={() => store.dismiss("problem")} />}
        {exported && <ExportNote exported={exported} onDismiss={() => store.dismiss("exported")} />}
        {session ? <MachinePage store={store} session={session} /> : <Home store={store} />}
      </main>
    </div>
  );
}
