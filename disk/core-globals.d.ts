// The few globals that every JavaScript host has and lib.es does not declare. Only the core's own tsconfig sees this.
declare class TextEncoder {
  encode(text: string): Uint8Array<ArrayBuffer>;
}
declare class TextDecoder {
  constructor(label?: string, options?: { fatal?: boolean });
  decode(bytes: Uint8Array): string;
}
declare const crypto: {
  getRandomValues<T extends ArrayBufferView>(into: T): T;
};
