import type { JSX } from "preact";
import type { Failure } from "../model/failure.ts";
import { TITLES } from "./ErrorCard.tsx";

interface QuestionProps { readonly failure: Failure; readonly onDecide: (verdict: "retry" | "fail") => void }

/** The base cannot be read; the guest is held meanwhile, and never given zeros. */
export function QuestionCard({ failure, onDecide }: QuestionProps): JSX.Element {
  return (
    <section class="card error" role="alert">
      <h3>The disk does not answer: the guest is paused</h3>
      <p class="message">{failure.message}</p>
      <div class="actions">
        <button type="button" class="primary" onClick={() => onDecide("retry")}>Try again</button>
        <button type="button" onClick={() => onDecide("fail")}>Give the guest an I/O error</button>
      </div>
    </section>
  );
}

interface BannerProps { readonly failure: Failure; readonly onDismiss: () => void }

export function TroubleBanner({ failure, onDismiss }: BannerProps): JSX.Element {
  return (
    <div class="banner bad" role="alert">
      <p><strong>{TITLES[failure.kind]}.</strong> {failure.message}</p>
      <button type="button" class="quiet" onClick={onDismiss}>Dismiss</button>
    </div>
  );
}
