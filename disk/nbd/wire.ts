/** One end of a two-way stream of bytes: a TCP or Unix socket, or a pair in memory. */
export interface Wire {
  /** Sends `bytes` behind those before. They belong to the wire until it calls `sent`; a wire that closes may never do so. */
  send(bytes: Uint8Array, sent?: () => void): void;
  /** How many bytes the system has not taken yet. */
  readonly unsent: number;
  /** Until `resume` nothing more arrives, so that the other side has to wait. */
  pause(): void;
  resume(): void;
  /** Calls `action` after other connections had their turn. */
  later(action: () => void): void;
  /** Closes when everything was sent. */
  end(): void;
  /** Closes at once. */
  destroy(): void;
}

/** What happens on a wire. */
export interface WireEvents {
  /** `bytes` are the receiver's only for this call, unless the wire says otherwise. */
  data(bytes: Uint8Array): void;
  /** All that was given to `send` is taken. */
  drained(): void;
  /** Nothing can be sent or will arrive any more; once. `error`: why, if not because both sides wanted it. */
  closed(error?: Error): void;
}
