import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ScreenMode } from "../../emulator/index.ts";
import { CTRL_ALT_DEL, scancodes } from "./scancodes.ts";
import type { Session } from "./session.ts";

/** The VGA screen, which takes the keyboard while it has the focus. */
export function ScreenPanel({ session, mode }: { readonly session: Session; readonly mode: ScreenMode }): JSX.Element {
  const frame = useRef<HTMLDivElement>(null), leave = useRef<HTMLButtonElement>(null);
  const [focused, focus] = useState(false);
  useEffect(() => frame.current?.replaceChildren(session.canvas), [session]);
  useKeyboard(session, frame, () => leave.current?.focus());
  const shape = mode.graphical ? `${mode.width}×${mode.height}` : `${mode.columns}×${mode.rows} text`;
  return (
    <section class="panel" aria-labelledby="screen">
      <header>
        <h3 id="screen">Screen</h3>
        <span class="hint">{shape}</span>
        <button type="button" ref={leave} onClick={() => session.sendScancodes(CTRL_ALT_DEL)}>Ctrl-Alt-Del</button>
      </header>
      <div class="screen" ref={frame} tabIndex={0} role="application" aria-label="Screen of the machine" aria-describedby="screen-hint"
        style={{ "--ratio": `${mode.width} / ${mode.height}`, "--width": `${mode.width}px` }}
        onFocus={() => focus(true)} onBlur={() => focus(false)} />
      <p class="hint" id="screen-hint">{focused ? <>Keys go to the machine. <kbd>Ctrl</kbd>+<kbd>Alt</kbd>+<kbd>G</kbd> leaves.</> : "Click the screen, or move the focus there, to type."}</p>
    </section>
  );
}

export function isLeaveChord(event: KeyboardEvent): boolean {
  return event.ctrlKey && event.altKey && event.code === "KeyG";
}

/** Every key that a PC has goes to the guest; what is still down when the focus is lost is let go there. */
function useKeyboard(session: Session, frame: { readonly current: HTMLElement | null }, leave: () => void): void {
  useEffect(() => {
    const target = frame.current, down = new Set<string>(), abort = new AbortController(), { signal } = abort;
    const send = (code: string, pressed: boolean): boolean => {
      const codes = scancodes(code, pressed);
      if (codes) session.sendScancodes(codes);
      return codes !== undefined;
    };
    const release = (): void => {
      for (const code of down) send(code, false);
      down.clear();
    };
    target?.addEventListener("keydown", (event) => {
      if (isLeaveChord(event)) {
        event.preventDefault();
        release();
        return leave();
      }
      if (!send(event.code, true)) {
        // Keyboards on glass name no key, only what it means.
        if (event.key.length === 1 && !event.isComposing) session.type(event.key);
        return;
      }
      down.add(event.code);
      event.preventDefault();
    }, { signal });
    target?.addEventListener("keyup", (event) => {
      if (down.delete(event.code) && send(event.code, false)) event.preventDefault();
    }, { signal });
    target?.addEventListener("blur", release, { signal });
    return () => abort.abort();
  }, [session]);
}
