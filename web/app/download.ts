/** How long the address of a download lives: the browser may ask the user where to put it first. */
const LIFETIME = 600_000;

/** Hands a file to the browser's downloads. It is streamed from where it is, whatever its size. */
export function saveFile(file: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), LIFETIME);
}
