import type { Gate } from "../gate.ts";

/** Passwords by the `id` that names them. */
export type Secrets = ReadonlyMap<string, Uint8Array>;

/** With what rights a name is opened. */
export interface NameAccess {
  /** `false`: neither take nor respect locks. */
  readonly lock: boolean;
  readonly writable?: boolean | undefined;
  /** What `encrypt.key-secret` may name. */
  readonly secrets?: Secrets | undefined;
  /** The name comes from an image on the web: it leads to nothing but the web. */
  readonly webOnly?: boolean | undefined;
  /** Opens what images below this name: an image may be the file of another one. */
  readonly gate: Gate;
}
