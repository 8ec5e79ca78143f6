import type { JSX } from "preact";
import { bytes } from "../model/words.ts";
import { fileOfUrl } from "../model/names.ts";
import { useClock, useObservable } from "./observable.ts";
import { QuestionCard, TroubleBanner } from "./Troubles.tsx";
import { ScreenPanel } from "./ScreenPanel.tsx";
import { SerialPanel } from "./SerialPanel.tsx";
import type { MachineView, Session } from "./session.ts";
import { StateChip } from "./StateChip.tsx";
import type { PageStore } from "./store.ts";
import { Toolbar } from "./Toolbar.tsx";

/** The machine that is on. */
export function MachinePage({ store, session }: { readonly store: PageStore; readonly session: Session }): JSX.Element {
  const { persisted, ending } = useObservable(store);
  const view = useObservable(session), [question] = view.questions;
  return (
    <section class="machine" aria-labelledby="machine" data-stage={view.stage}>
      <header>
        <h2 id="machine">{session.request.title}</h2>
        <StateChip save={view.save} persisted={persisted} />
        <Status session={session} view={view} ending={ending} />
      </header>
      <Toolbar store={store} session={session} view={view} ending={ending} />
      {question && <QuestionCard failure={question.failure} onDecide={(verdict) => session.decide(verdict)} />}
      {view.trouble && <TroubleBanner failure={view.trouble} onDismiss={() => session.dismissTrouble()} />}
      <div class="panels">
        <ScreenPanel session={session} mode={view.mode} />
        <SerialPanel session={session} ready={view.ready !== undefined} />
      </div>
    </section>
  );
}

interface StatusProps { readonly session: Session; readonly view: MachineView; readonly ending: boolean }

function Status({ session, view, ending }: StatusProps): JSX.Element {
  const { settings, base } = session.request, { traffic } = view;
  return (
    <div class="status">
      <Progress session={session} view={view} ending={ending} />
      <p class="facts">
        {settings.memory} MB · {settings.bus}
        {traffic && base.kind !== "files" && <> · {fileOfUrl(base.url)}: {bytes(traffic.bytes)} of {bytes(traffic.size)} fetched</>}
      </p>
    </div>
  );
}

/** What is being done: announced, but for the seconds that run. */
function Progress({ session, view, ending }: StatusProps): JSX.Element {
  const { expects } = session.request, booting = view.stage === "on" && view.ready === undefined && expects !== undefined && !view.halted;
  useClock(500);
  const elapsed = view.started === undefined ? 0 : (performance.now() - view.started) / 1000;
  const usual = expects?.seconds ?? 0;
  return (
    <>
      <p class="doing" role="status" data-ready={view.ready !== undefined}>{sentence(view, ending, expects !== undefined)}{view.facts?.continued && view.stage === "on" && " With your changes."}</p>
      {booting && <>
        <progress aria-label="Booting" max={1} value={Math.min(0.95, elapsed / (usual * 2 + elapsed / 2))} />
        <span class="hint" aria-hidden="true">{Math.floor(elapsed)} s</span>
      </>}
      {view.stage !== "on" && <progress aria-label="Preparing" />}
    </>
  );
}

const STAGES: Readonly<Record<Exclude<MachineView["stage"], "on">, string>> = {
  bios: "Loading the BIOS…", base: "Opening the image…", overlay: "Opening the changes…", emulator: "Loading the emulator…", starting: "Switching on…",
};

function sentence(view: MachineView, ending: boolean, expects: boolean): string {
  if (ending) return "Saving and switching off…";
  if (view.stage !== "on") return STAGES[view.stage];
  if (view.questions.length > 0) return "Waiting for the disk.";
  if (view.halted) return "The guest has halted. Reset it, or power it off.";
  if (!view.running) return "Paused.";
  if (view.ready !== undefined && view.started !== undefined && view.ready > view.started) return `Ready after ${((view.ready - view.started) / 1000).toFixed(1)} s.`;
  return expects && view.ready === undefined ? "Booting…" : "Running.";
}
