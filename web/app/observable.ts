import { useEffect, useState } from "preact/hooks";

/** A state that components follow. */
export class Observable<S extends object> {
  #state: S;
  readonly #followers = new Set<() => void>();

  constructor(state: S) {
    this.#state = state;
  }

  get state(): S {
    return this.#state;
  }

  subscribe(follower: () => void): () => void {
    this.#followers.add(follower);
    return () => { this.#followers.delete(follower); };
  }

  protected set(change: Partial<S>): void {
    this.replace({ ...this.#state, ...change });
  }

  protected replace(state: S): void {
    this.#state = state;
    for (const follower of this.#followers) follower();
  }
}

export function useObservable<S extends object>(observable: Observable<S>): S {
  const [, redraw] = useState(0);
  useEffect(() => observable.subscribe(() => redraw((count) => count + 1)), [observable]);
  return observable.state;
}

/** Redraws every `interval` ms, for texts that tell how long ago something was. */
export function useClock(interval: number): void {
  const [, redraw] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => redraw((count) => count + 1), interval);
    return () => clearInterval(timer);
  }, [interval]);
}
