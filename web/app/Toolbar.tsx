import type { JSX } from "preact";
import { ConfirmButton } from "./ConfirmButton.tsx";
import type { MachineView, Session } from "./session.ts";
import type { PageStore } from "./store.ts";

interface Props { readonly store: PageStore; readonly session: Session; readonly view: MachineView; readonly ending: boolean }

export function Toolbar({ store, session, view, ending }: Props): JSX.Element {
  const off = view.stage !== "on" || ending, waits = off || view.questions.length > 0, { facts } = view;
  return (
    <div class="actions toolbar" role="group" aria-label="Machine">
      <button type="button" disabled={off} onClick={() => void store.powerOff()}>Power off</button>
      <button type="button" disabled={waits} onClick={() => session.reset()} title="The guest reboots; what it had not written to its disk is lost">Reset</button>
      <button type="button" disabled={waits} aria-pressed={!off && !view.running} onClick={() => session.togglePause()}>{off || view.running ? "Pause" : "Resume"}</button>
      <button type="button" disabled={waits} onClick={() => void store.downloadRunning()} title="The changes as a qcow2 file; run 'sync' in the guest first">Download changes</button>
      {facts && <ConfirmButton disabled={waits} question="Delete the changes and boot from the base?" yes="Delete" no="Keep" onConfirm={() => void store.startFresh(facts.id)}>Start fresh…</ConfirmButton>}
    </div>
  );
}
