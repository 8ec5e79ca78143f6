/** What an image offers to whoever boots it. Pure data: the page, Node and the tests all read it. */
export interface Guest {
  /** Its folder below guests/, and what guests/build.sh calls it. */
  readonly name: string;
  readonly title: string;
  readonly description: string;
  /** The disk image, relative to guests/out. */
  readonly image: string;
  /** Everything its build leaves, relative to guests/out. */
  readonly files: readonly string[];
  /** RAM it needs to boot, and RAM it is comfortable with. */
  readonly memoryMiB: { readonly minimum: number; readonly default: number };
  /** What the serial port says when the guest waits for commands (or is done, if it takes none). */
  readonly prompt: string;
  /** Whether `prompt` is that of a shell, which takes the next command. */
  readonly shell: boolean;
  /** Further lines the serial port shows on the way to `prompt`, in order. */
  readonly says: readonly string[];
  /** About how long guests/build.sh takes from nothing, downloads included. */
  readonly buildSeconds: number;
  /** About how long v86 takes from power-on to `prompt`, by bus, on one free processor core. */
  readonly bootSeconds: { readonly ide: number; readonly virtio: number };
}
