import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

interface Props {
  readonly children: ComponentChildren;
  /** The question, and the two answers. */
  readonly question: string;
  readonly yes: string;
  readonly no: string;
  readonly disabled?: boolean;
  readonly onConfirm: () => void;
}

/** A button that asks back: for what cannot be undone. */
export function ConfirmButton({ children, question, yes, no, disabled, onConfirm }: Props): JSX.Element {
  const [asking, ask] = useState(false);
  const keep = useRef<HTMLButtonElement>(null);
  useEffect(() => { if (asking) keep.current?.focus(); }, [asking]);
  if (!asking) return <button type="button" disabled={disabled} onClick={() => ask(true)}>{children}</button>;
  const confirm = (): void => {
    ask(false);
    onConfirm();
  };
  return (
    <span class="confirm" role="group" aria-label={question} onKeyDown={(event) => { if (event.key === "Escape") ask(false); }}>
      <span>{question}</span>
      <button type="button" class="danger" onClick={confirm}>{yes}</button>
      <button type="button" ref={keep} onClick={() => ask(false)}>{no}</button>
    </span>
  );
}
