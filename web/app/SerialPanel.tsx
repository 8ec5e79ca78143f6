import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { isLeaveChord } from "./ScreenPanel.tsx";
import type { Session } from "./session.ts";

/** The first serial port as a terminal. */
export function SerialPanel({ session, ready }: { readonly session: Session; readonly ready: boolean }): JSX.Element {
  const frame = useRef<HTMLDivElement>(null), leave = useRef<HTMLButtonElement>(null);
  const [terminal, setTerminal] = useState<Terminal>();
  const [hint, setHint] = useState("");
  useEffect(() => {
    if (!frame.current) return;
    const { made, end } = openTerminal(frame.current, session, () => leave.current?.focus(), setHint);
    setTerminal(made);
    return end;
  }, [session]);
  useEffect(() => {
    // The shell waits: typing may begin, unless the user is busy elsewhere.
    if (ready && document.activeElement === document.body) terminal?.focus();
  }, [ready, terminal]);
  const copy = (): void => void copySelection(terminal).then(setHint);
  const paste = (): void => void pasteInto(terminal).then(setHint);
  return (
    <section class="panel" aria-labelledby="serial">
      <header>
        <h3 id="serial">Serial terminal</h3>
        <span class="hint">COM1</span>
        <button type="button" ref={leave} onClick={copy}>Copy</button>
        <button type="button" onClick={paste}>Paste</button>
      </header>
      <div class="console"><div class="fit" ref={frame} /></div>
      <p class="hint" aria-live="polite">{hint || <><kbd>Ctrl</kbd>+<kbd>Shift</kbd>+<kbd>C</kbd> and <kbd>V</kbd> copy and paste. <kbd>Ctrl</kbd>+<kbd>Alt</kbd>+<kbd>G</kbd> leaves.</>}</p>
    </section>
  );
}

const FONT = "ui-monospace, 'Cascadia Mono', 'DejaVu Sans Mono', Menlo, Consolas, monospace";
const THEME = { background: "#10151a", foreground: "#d6dde3", cursor: "#5eead4", selectionBackground: "#2f5b66" };

function openTerminal(frame: HTMLElement, session: Session, leave: () => void, tell: (hint: string) => void): { made: Terminal; end: () => void } {
  const made = new Terminal({ fontFamily: FONT, fontSize: 13, scrollback: 5000, cursorBlink: true, theme: THEME });
  const fit = new FitAddon();
  made.loadAddon(fit);
  made.open(frame);
  made.attachCustomKeyEventHandler((event) => {
    const ours = isLeaveChord(event) ? leave : isCopyChord(event) ? () => void copySelection(made).then(tell) : undefined;
    if (!ours) return true;
    event.preventDefault();
    if (event.type === "keydown") ours();
    return false;
  });
  made.onData((data) => session.sendSerial(data));
  made.onBinary((data) => session.sendSerial(Uint8Array.from(data, (character) => character.charCodeAt(0))));
  const stop = session.onSerial((bytes) => made.write(bytes));
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(frame);
  return { made, end: () => {
    observer.disconnect();
    stop();
    made.dispose();
  } };
}

/** Ctrl+Shift+C: Ctrl+C alone is the guest's. Pasting is the browser's own Ctrl+Shift+V. */
function isCopyChord(event: KeyboardEvent): boolean {
  return event.ctrlKey && event.shiftKey && !event.altKey && event.code === "KeyC";
}

async function copySelection(terminal: Terminal | undefined): Promise<string> {
  const text = terminal?.getSelection() ?? "";
  if (text === "") return "Select some text first, then copy.";
  try {
    await navigator.clipboard.writeText(text);
    return "Copied.";
  } catch {
    return "The browser did not let this page copy.";
  }
}

async function pasteInto(terminal: Terminal | undefined): Promise<string> {
  try {
    terminal?.paste(await navigator.clipboard.readText());
    terminal?.focus();
    return "";
  } catch {
    return "The browser did not let this page read the clipboard: click the terminal and press Ctrl+Shift+V.";
  }
}
